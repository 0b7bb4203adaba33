package load

import (
	"context"
	"fmt"
	"time"
)

// drainTimeout is how long what is under way when a measurement ends may take
// to arrive.
const drainTimeout = 2 * time.Second

// Native is the bench's own generator.
type Native struct{}

var workloads = map[string]func(context.Context, Job) (Figures, error){
	TCPStream:   tcpStream,
	UDPStream:   udpStream,
	UDPPackets:  udpPackets,
	TCPRequests: tcpRequests,
	UDPRequests: udpRequests,
	TCPConnects: tcpConnects,
	HTTP:        httpRequests,
	Idle:        idle,
}

// Run runs one job. It ends at the job's end, or soon after the context's.
func (Native) Run(ctx context.Context, j Job) (Figures, error) {
	run, ok := workloads[j.Workload]
	if !ok {
		return nil, fmt.Errorf("there is no workload %q", j.Workload)
	}
	p, err := j.prepared()
	if err == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.most())
		defer cancel()
		var f Figures
		if f, err = run(ctx, p); err == nil {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%s from %s to %s: %w", j.Workload, j.Client.Label, j.Server.Label, err)
}

// idle lets the time go by.
func idle(ctx context.Context, j Job) (Figures, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(j.WarmUp + j.Duration):
		return Figures{}, nil
	}
}
