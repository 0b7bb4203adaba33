package topology

// minHeartbeats is how many heartbeats an election has to take at the least
// (go.etcd.io/etcd server/embed/config.go, Validate): one that is lost is no reason
// for another leader.
const minHeartbeats = 5

// etcd checks the intervals against each other; alone they are checked when they
// are read.
func (v *validator) etcd() {
	const path = "spec.controlPlane.etcd"
	heartbeat, election := v.c.Spec.ControlPlane.Etcd.Intervals()
	if election >= minHeartbeats*heartbeat || v.bad[path] {
		return
	}
	at, ofElection, ofHeartbeat := path+".election", "", v.where(path+".heartbeat")
	if !v.doc.present(at) { // what the author would change
		at, ofElection, ofHeartbeat = path+".heartbeat", v.where(at), ""
	}
	v.errorf(at, "election-too-short", "an election of %s%s is less than %d heartbeats of %s%s", election, ofElection, minHeartbeats, heartbeat, ofHeartbeat)
}
