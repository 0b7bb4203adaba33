package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/internal/ordered"
)

// occupyCmd is what plays, in a rehearsal, the programs that hosts run already.
func (a *app) occupyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "occupy PROTOCOL/ADDRESS:PORT...", Hidden: true, Args: cobra.MinimumNArgs(1), Short: "Listen at some addresses and say nothing",
		RunE: func(cmd *cobra.Command, args []string) error {
			var ends []func() error
			defer func() {
				for _, end := range ends {
					_ = end()
				}
			}()
			for _, arg := range args {
				end, err := listenAt(cmd.Context(), arg)
				if err != nil {
					return err
				}
				ends = append(ends, end)
			}
			<-cmd.Context().Done()
			return nil
		},
	}
}

// listenAt takes an address; who connects is let go at once.
func listenAt(ctx context.Context, what string) (end func() error, err error) {
	protocol, address, ok := strings.Cut(what, "/")
	if !ok {
		return nil, usageError("%q is not PROTOCOL/ADDRESS:PORT", what)
	}
	var c net.ListenConfig
	if protocol == "udp" {
		p, err := c.ListenPacket(ctx, protocol, address)
		if err != nil {
			return nil, err
		}
		return p.Close, nil
	}
	l, err := c.Listen(ctx, protocol, address)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_ = conn.Close()
			}
		}
	}()
	return l.Close, nil
}

// occupy has somebody listen, on a lab's nodes, where hosts have programs of
// their own.
func occupy(ctx context.Context, hosts map[string]installer.Host, program installer.Blob, taken map[string][]string) error {
	var st installer.Step
	for _, name := range ordered.Keys(taken) {
		if len(taken[name]) == 0 || hosts[name] == nil {
			continue
		}
		text := fmt.Sprintf("[Unit]\nDescription=Listens where the host has programs of its own\n\n[Service]\nExecStart=%s occupy %s\nRestart=on-failure\n\n[Install]\nWantedBy=multi-user.target\n",
			installer.StorePath(program.Sum), strings.Join(taken[name], " "))
		st.Work = append(st.Work, installer.Work{Host: name, Items: []installer.Item{cluster.Archive{Blob: program}, installer.Unit{Name: "slipway-occupied.service", Text: []byte(text)}}})
	}
	e := &installer.Engine{Hosts: hosts}
	return e.Step(ctx, installer.Phase{ID: "rehearsal"}, st)
}
