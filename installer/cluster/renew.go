package cluster

import (
	"fmt"
	"time"

	"slipway/installer"
)

// KubeletCertificate is the file in which kubelet keeps the certificate that it
// got from the API, and its key.
const KubeletCertificate = kubeletData + "/pki/kubelet-client-current.pem"

// RenewKubelet has a node's kubelet ask for another certificate, by a signing
// request as when it joined. If nobody signs it, kubelet goes on with the old one.
// Old is until when that is good: it says which it is.
func RenewKubelet(_ Inputs, name string, old time.Time) installer.Phase {
	conf, aside := etcDir+"/kubelet.conf", kubeletData+"/pki/replaced"
	return installer.Phase{
		ID: "08-nodes", Title: "Nodes and their rules for services",
		Steps: []installer.Step{{Name: "kubelet's certificate", Why: "What kubelet shows the API is between the two: the key never leaves the node.", Work: []installer.Work{{Host: name, Items: []installer.Item{installer.Action{
			Name:  "kubelet has another certificate than the one until " + old.UTC().Format(time.DateTime),
			Check: fmt.Sprintf("test -s %s && test -e %s/done-%d", KubeletCertificate, aside, old.Unix()),
			Do: fmt.Sprintf(`rm -rf %[1]s
mkdir -p %[1]s
systemctl stop kubelet.service
mv %[2]s %[1]s/kubelet.conf
mv %[3]s/pki/kubelet-client-* %[1]s/
systemctl start kubelet.service
end=$(($(date +%%s) + 120))
until [ -s %[2]s ] && [ -s %[4]s ] && curl -sSf http://127.0.0.1:10248/healthz >/dev/null 2>&1; do
	if [ "$(date +%%s)" -ge "$end" ]; then
		systemctl stop kubelet.service
		rm -f %[2]s %[3]s/pki/kubelet-client-*
		mv %[1]s/kubelet.conf %[2]s
		mv %[1]s/kubelet-client-* %[3]s/pki/
		systemctl start kubelet.service
		echo 'nobody signed its request within two minutes (kubectl get csr): it goes on with the old certificate' >&2
		exit 1
	fi
	sleep 0.2
done
rm -f %[1]s/*
: >%[1]s/done-%[5]d`, aside, conf, kubeletData, KubeletCertificate, old.Unix()),
		}}}}}},
	}
}
