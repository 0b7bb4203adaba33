package ruletrace

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
)

// space is the tracing in one namespace. Hits come by sockets of their own, so
// that answers to requests do not mix with them.
type space struct {
	ns     *netns.NS
	inode  uint64
	logger *logger
	rules  *socket // has our table
	log    *socket // what legacy rules log
	traces *socket // what nftables tells of its rules
	nft    nftState
	order  int
	lost   int
}

func openSpace(ns *netns.NS, flows []datapath.Flow, ports datapath.Ports) (*space, error) {
	s := &space{ns: ns}
	var err error
	if s.inode, err = ns.Inode(); err != nil {
		return nil, err
	}
	if err := ns.Do(s.open); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.start(flows, ports); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// open makes what belongs to the calling thread's namespace.
func (s *space) open() error {
	var err error
	for _, to := range []**socket{&s.rules, &s.log, &s.traces} {
		if *to, err = openSocket(); err != nil {
			return fmt.Errorf("open netfilter's netlink: %w", err)
		}
	}
	// To bind is what loads the logger's module where it is one.
	err = s.log.ask(bindLog())
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		return ErrBusy
	}
	if err != nil {
		return fmt.Errorf("bind log group %d: %w", logGroup, err)
	}
	s.logger, err = useLogger()
	return err
}

func (s *space) start(flows []datapath.Flow, ports datapath.Ports) error {
	if err := s.traces.join(unix.NFNLGRP_NFTRACE); err != nil {
		return fmt.Errorf("join nftables' traces: %w", err)
	}
	requests := newTable()
	for _, f := range flows {
		requests = append(requests, newRules(f, ports)...)
	}
	err := s.rules.commit(requests)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EPERM) {
		return ErrBusy
	}
	if err != nil {
		return fmt.Errorf("make table %s: %w", tableName, err)
	}
	return nil
}

// close ends the tracing first, so that nothing is logged by another logger.
func (s *space) close() error {
	var errs []error
	for _, k := range []*socket{s.rules, s.traces} {
		if k != nil {
			errs = append(errs, k.close())
		}
	}
	if s.logger != nil {
		errs = append(errs, s.logger.restore())
	}
	if s.log != nil {
		errs = append(errs, s.log.close())
	}
	return errors.Join(errs...)
}

// drain adds the hits that are there.
func (s *space) drain(all []Hit) ([]Hit, error) {
	all, err := s.drainLog(all)
	if err != nil {
		return all, err
	}
	return s.drainTraces(all)
}

func (s *space) drainLog(all []Hit) ([]Hit, error) {
	for {
		messages, err := s.log.receive()
		if errors.Is(err, unix.ENOBUFS) {
			s.lost++
			continue
		}
		if err != nil || messages == nil {
			return all, err
		}
		for _, m := range messages {
			if m.Header.Type != unix.NFNL_SUBSYS_ULOG<<8|logPacket {
				continue
			}
			hit, ok, err := decodeLog(m.Data)
			if err != nil {
				return all, err
			}
			if ok {
				all = append(all, s.complete(hit))
			}
		}
	}
}

// rawHit is a hit as the kernel tells it.
type rawHit struct {
	Hit
	in, out uint32
}

// complete says where the hit was made.
func (s *space) complete(r rawHit) Hit {
	h := r.Hit
	s.order++
	h.Order, h.Inode = s.order, s.inode
	h.In, h.Out = s.log.device(r.in), s.log.device(r.out)
	return h
}
