// Package linux makes the kernel of one namespace or host equal to a
// [datapath.NodeConfig] and reads it back.
//
// [Compare] is pure: it says what separates an observed state from a wanted
// one. [Host.Apply] does what it says, so that a second Apply has nothing to do.
//
// What belongs to Slipway on a machine that it shares with others:
//
//   - devices named flannel.N, flannelN, cni0 and tunl0, with their addresses;
//   - routes of the main table inside NodeConfig.PodRange, through an owned
//     device, with protocol bird, or to 169.254.1.1/32 with protocol static;
//     but not routes that the kernel made itself, nor host routes to pods
//     (dev cali…), nor, while there is a BGP speaker, what it has learnt;
//   - permanent neighbours and FDB entries on owned devices, but for neighbours
//     behind cni0, which the CNI plugin keeps for the pods;
//   - iptables chains that begin with FLANNEL-, cali- or KUBE- (without the
//     kubelet's and NodeConfig.ForeignChains), and rules in built-in chains that
//     jump to them;
//   - the sysctls that the NodeConfig names.
//
// All of that is removed when it is not wanted; nothing else is ever touched.
// The pods' ports, veths named veth and eight hex digits on cni0 or no bridge,
// and cali and eleven, are the CNI plugin's to make and remove: Compare
// reports what is wrong with them (object "pod") and Apply leaves them alone.
package linux
