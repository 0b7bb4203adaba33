# machine.sh SUBNET TO VIA: makes a machine one that kubeadm expects, with the programs
# that lie in $programs. Pods of this node have the addresses of SUBNET; those of TO
# are reached by VIA.
set -eu
subnet=$1 to=$2 via=$3
install -m 755 "$programs"/* /usr/local/bin/
for name in kubelet kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
	ln -f /usr/local/bin/kubernetes /usr/local/bin/$name
done
mkdir -p /opt/cni/bin /etc/cni/net.d /etc/containerd /etc/systemd/system/kubelet.service.d
mv /usr/local/bin/bridge /usr/local/bin/host-local /usr/local/bin/loopback /opt/cni/bin/

# The network: a bridge on each node, and a route to the other's.
cat >/etc/cni/net.d/10-bridge.conflist <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods0", "isGateway": true, "isDefaultGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "$subnet"}]]}}]}
END
ip route replace "$to" via "$via"
echo 1 >/proc/sys/net/ipv4/ip_forward

# The runtime. Who is killed when memory runs out is not for a container to say.
cat >/etc/containerd/config.toml <<'END'
version = 3
oom_score = 0
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "slipway.local/pause:v1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
END
cat >/etc/systemd/system/containerd.service <<'END'
[Service]
Type=notify
ExecStart=/usr/local/bin/containerd
KillMode=process
Delegate=yes
END

# kubelet, as the packages kubelet and kubeadm have it (kubernetes/release,
# cmd/krel/templates/latest): it starts over until kubeadm has written what it reads.
cat >/etc/systemd/system/kubelet.service <<'END'
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/local/bin/kubelet
KillMode=process
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
END
cat >/etc/systemd/system/kubelet.service.d/10-kubeadm.conf <<'END'
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=
ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
END
cat >/etc/systemd/system/kube-proxy.service <<'END'
[Service]
ExecStart=/usr/local/bin/kube-proxy --kubeconfig=/etc/kubernetes/kube-proxy.conf --proxy-mode=iptables --cluster-cidr=10.50.0.0/16 --conntrack-max-per-core=0 --conntrack-min=0
Restart=always
RestartSec=1
END
systemctl daemon-reload
systemctl start containerd
systemctl enable -q kubelet

# Images: ours for pods, and one with all programs of the control plane, which is
# called what kubeadm calls each of them. Its layout is that of `docker save`.
ctr() { /usr/local/bin/ctr -n k8s.io "$@"; }
for archive in "$images"/*; do ctr images import "$archive" >/dev/null; done
work=$(mktemp -d -p /root)
mkdir -p "$work/root/usr/local/bin" "$work/root/tmp"
ln /usr/local/bin/kubernetes "$work/root/usr/local/bin/"
for name in kube-apiserver kube-controller-manager kube-scheduler; do ln -s kubernetes "$work/root/usr/local/bin/$name"; done
ln /usr/local/bin/etcd /usr/local/bin/etcdctl "$work/root/usr/local/bin/"
tar -C "$work/root" -cf "$work/layer.tar" .
sum=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$sum" >"$work/config.json"
printf '[{"Config":"config.json","RepoTags":["control.local/plane:v1"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
tar -C "$work" -cf "$work/image.tar" manifest.json config.json layer.tar
ctr images import "$work/image.tar" >/dev/null
rm -rf "$work"
for ref in $(kubeadm config images list --config "$config" 2>/dev/null); do
	case $ref in
	*/coredns:*) from=$(ctr images ls -q | grep '^slipway.local/coredns:') ;;
	*/pause:*) from=slipway.local/pause:v1 ;;
	*) from=control.local/plane:v1 ;;
	esac
	ctr images tag "$from" "$ref" >/dev/null
done
