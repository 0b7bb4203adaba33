package topology

// fieldDoc is what the schema says of one field beyond its type.
type fieldDoc struct {
	text     string
	value    any // the default
	words    []any
	pattern  string
	min, max int64
	nonEmpty bool
}

// fieldDocs describes every field of the cluster file, by type and YAML name.
var fieldDocs = map[string]fieldDoc{
	"Cluster.apiVersion": {text: "Version of this file format.", words: []any{APIVersion}},
	"Cluster.kind":       {text: "What the file describes.", words: []any{KindCluster}},
	"Cluster.metadata":   {text: "The name of the cluster."},
	"Cluster.spec":       {text: "What the cluster consists of; everything in it has a default."},

	"Metadata.name": {text: "Name of the cluster and of the lab built from it: a DNS label.", pattern: labelPattern},

	"Spec.network":      {text: "The pod and service network."},
	"Spec.proxy":        {text: "kube-proxy's part: how services are implemented."},
	"Spec.underlay":     {text: "The network that the nodes are plugged into."},
	"Spec.nodes":        {text: "The machines. Left out: master01 (control-plane, etcd), node01 and node02 (worker).", nonEmpty: true},
	"Spec.controlPlane": {text: "How clients reach the apiservers, and how these reach etcd."},
	"Spec.components":   {text: "How much of Kubernetes really runs in the nodes.", value: ComponentsNone},
	"Spec.manifests":    {text: "Kubernetes YAML files to load, relative to this file."},
	"Spec.programs":     {text: "Programs of your own, in the place of those that are built."},

	"Program.name":   {text: "Which program it is."},
	"Program.file":   {text: "Where it is, relative to this file."},
	"Program.sha256": {text: "Its SHA-256. Left out: whatever the file is when it is read.", pattern: sumPattern.String()},

	"Network.mode":             {text: "How packets get from node to node.", value: FlannelVXLAN},
	"Network.implementation":   {text: "Whose programs do that on the nodes of components: full. upstream is flanneld with the plugins bridge and portmap, or in calico-bgp calico's felix, confd and plugins with BIRD 2.", value: ImplementationSlipway},
	"Network.podCIDR":          {text: "The range of all pod addresses.", value: defaultPodCIDR.String()},
	"Network.serviceCIDR":      {text: "The range of cluster IPs, /12 to /28; its tenth address is the cluster DNS.", value: defaultServiceCIDR.String()},
	"Network.nodePrefixLength": {text: "Length of each node's pod subnet in the flannel modes. The calico modes hand out blocks of /26.", value: defaultNodePrefix, min: 1, max: 30},
	"Network.mtu":              {text: "MTU of the pods in bytes. auto: the smallest segment's, less the encapsulation (udp 28, vxlan 50, ipip 20).", value: "auto"},
	"Network.vxlan":            {text: "Settings of flannel-vxlan."},
	"Network.udp":              {text: "Settings of flannel-udp."},
	"Network.bgp":              {text: "Settings of calico-bgp, and of the route exchange of calico-ipip."},
	"Network.ipip":             {text: "Settings of calico-ipip."},

	"VXLAN.vni":           {text: "VXLAN network identifier.", value: defaultVNI, min: 1, max: 1<<24 - 1},
	"VXLAN.port":          {text: "UDP port of the VTEPs.", value: defaultVXLANPort, min: 1, max: 65535},
	"VXLAN.directRouting": {text: "Use plain routes between nodes of one segment.", value: false},

	"UDP.port":           {text: "UDP port of the tunnels.", value: defaultUDPPort, min: 1, max: 65535},
	"UDP.implementation": {text: "simple: one packet per system call, as flanneld does it; batched: many; ebpf: in the kernel, by tc programs.", value: UDPBatched},

	"BGP.asn":             {text: "The AS number of all speakers.", value: defaultASN, min: 1, max: 1<<32 - 2},
	"BGP.topology":        {text: "Who peers with whom.", value: FullMesh},
	"BGP.routeReflectors": {text: "Nodes or routers that reflect routes."},
	"BGP.peers":           {text: "Speakers outside the cluster, which connect to all of its speakers, or to the reflectors where there are any."},

	"BGPPeer.address": {text: "The peer's address, in a segment."},
	"BGPPeer.asn":     {text: "Its AS number. Left out: the cluster's.", min: 1, max: 1<<32 - 2},

	"IPIP.policy":         {text: "always: encapsulate between all nodes; cross-subnet: only between segments.", value: IPIPAlways},
	"IPIP.implementation": {text: "Who encapsulates; auto takes the first that works here.", value: IPIPAuto},

	"Proxy.mode":      {text: "kube-proxy's backend.", value: ProxyIPTables},
	"Proxy.nodePorts": {text: "The range of node ports.", value: defaultNodePorts.String()},

	"Underlay.segments": {text: "Broadcast domains. Left out: rack1.", nonEmpty: true},
	"Underlay.routers":  {text: "Routers between segments."},

	"Segment.name":   {text: "Name: a DNS label of at most 15 characters.", pattern: devicePattern},
	"Segment.subnet": {text: "The addresses of the segment. Left out: 192.168.233.0/24 for the first, and counted up."},
	"Segment.mtu":    {text: "MTU in bytes of IP packet.", value: defaultMTU, min: minPodMTU, max: maxMTU},
	"Segment.rate":   {text: "Bandwidth of each port, each way, such as 1Gbit; a number alone is bit/s. 0: unlimited.", value: 0},
	"Segment.delay":  {text: "What crossing the segment takes, one way, up to 10s.", value: 0},
	"Segment.loss":   {text: "Share of packets that are lost on crossing the segment, such as 0.1%.", value: 0},

	"Router.name":     {text: "Name: a DNS label, unlike that of any node.", pattern: labelPattern},
	"Router.segments": {text: "The segments that it joins; its interfaces are eth0, eth1 in this order.", nonEmpty: true},

	"Node.name":    {text: "Name of the machine: a DNS label.", pattern: labelPattern},
	"Node.roles":   {text: "What the node is for. Left out: worker.", nonEmpty: true},
	"Node.segment": {text: "The segment that it is plugged into. May be left out when there is one only, or when the address tells."},
	"Node.address": {text: "Its address. Left out: the lowest free one from .10 of its segment."},
	"Node.labels":  {text: "Labels for nodeSelector, beside those that Kubernetes sets by itself."},
	"Node.ssh":     {text: "How the installer reaches the node as a real host."},

	"SSH.host": {text: "Host name or address. Left out: the node's address."},
	"SSH.user": {text: "User to log in as."},
	"SSH.port": {text: "TCP port.", value: defaultSSHPort, min: 1, max: 65535},

	"ControlPlane.loadBalancer": {text: "The balancer in front of the apiservers."},
	"ControlPlane.etcd":         {text: "Settings of etcd's members."},

	"Etcd.heartbeat": {text: "How often the leader says that it is there: about the round trip between the members that are furthest apart.", value: DefaultEtcdHeartbeat.String()},
	"Etcd.election":  {text: "How long a member hears nothing before it wants to be the leader: at least five heartbeats, at most 50s. Without a leader nothing can be written.", value: DefaultEtcdElection.String()},

	"LoadBalancer.mode":      {text: "node-local: one on every node; external: nodes of role load-balancer share a vip; none: clients go to the first apiserver. Left out: none if there is one apiserver and no loadBalancer, else node-local.", words: []any{"none", "node-local", "external"}},
	"LoadBalancer.software":  {text: "The program: nginx, haproxy or envoy; envoy only node-local.", value: "nginx", words: []any{"nginx", "haproxy", "envoy"}},
	"LoadBalancer.vip":       {text: "The virtual address of an external balancer, kept by keepalived."},
	"LoadBalancer.nopreempt": {text: "The vip stays where it went, also when the machine that had it is back."},
}
