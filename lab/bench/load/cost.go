package load

// Metrics of cost, as [Cost.Figures] has them.
const (
	CPU                 = "cpu"     // s, of all processors, busy with anything
	SoftIRQ             = "softirq" // s, the part of it in soft interrupts
	ContextSwitches     = "context-switches"
	DaemonCPU           = "daemon-cpu" // s, of the lab's daemon
	CPUPerGB            = "cpu-per-gb" // GB is 10⁹ bytes of payload
	SoftIRQPerGB        = "softirq-per-gb"
	DaemonCPUPerGB      = "daemon-cpu-per-gb"
	SwitchesPerGB       = "context-switches-per-gb"
	CPUPerRequest       = "cpu-per-request"
	SoftIRQPerRequest   = "softirq-per-request"
	DaemonCPUPerRequest = "daemon-cpu-per-request"
	SwitchesPerRequest  = "context-switches-per-request"
	ConntrackEntries    = "conntrack-entries" // more than before, in all namespaces
	DeviceDrops         = "device-drops"      // packets, at all devices looked at
)
