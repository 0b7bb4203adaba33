package linux

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// A memo remembers which rules a host was last left with: what was wanted, and
// a fingerprint of the tables as the kernel holds them. When both still are the
// same, the rules need not be read by starting iptables-save, which takes longer
// than everything else that a second look at a node does.

// Socket options and sizes of the legacy iptables interface (linux
// include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter/x_tables.h).
const (
	soGetInfo    = 64  // IPT_SO_GET_INFO
	soGetEntries = 65  // IPT_SO_GET_ENTRIES
	tableNameLen = 32  // XT_TABLE_MAXNAMELEN
	infoLen      = 84  // struct ipt_getinfo
	infoSizeAt   = 80  // .size
	entriesAt    = 40  // struct ipt_get_entries, .entrytable
	entryCacheAt = 84  // struct ipt_entry, .nfcache
	entryNextAt  = 90  // .next_offset
	entryFromAt  = 92  // .comefrom
	entryLen     = 112 // struct ipt_entry
)

// wantedMark tells configurations apart by their rules. It is a hash of the
// texts themselves, as there can be a hundred thousand of them.
func wantedMark(cfg datapath.NodeConfig) string {
	h := sha256.New()
	w := bufio.NewWriterSize(h, 1<<16)
	put := func(kind byte, texts ...string) {
		for _, t := range texts { // none has a line feed in it
			_ = w.WriteByte(kind)   // a hash takes everything
			_, _ = w.WriteString(t) // likewise
			_ = w.WriteByte('\n')   // likewise
		}
	}
	for _, rs := range cfg.RuleSets {
		put('o', rs.Owner)
		for _, t := range rs.Tables {
			put('t', t.Name)
			put('c', t.Chains...)
			put('r', t.Rules...)
			for _, j := range t.Jumps {
				put('j', strconv.FormatBool(j.Prepend), j.Rule)
			}
		}
		if rs.NFT != nil {
			fmt.Fprintf(w, "n%+v\n", *rs.NFT)
		}
	}
	put('f', cfg.ForeignChains...)
	_ = w.Flush() // likewise
	return hex.EncodeToString(h.Sum(nil))
}

// memoText is what the memo's file holds for wanted rules whose tables have the
// fingerprint.
func memoText(wanted, fingerprint string) string { return wanted + " " + fingerprint + "\n" }

// rulesRemembered reports whether the memo says that the rules are as they are
// wanted. Anything unexpected says no.
func (h *Host) rulesRemembered(wanted string) bool {
	if h.opts.MemoFile == "" {
		return false
	}
	memo, err := os.ReadFile(h.opts.MemoFile)
	if err != nil || !strings.HasPrefix(string(memo), wanted+" ") {
		return false // also without a look at the kernel
	}
	now, err := h.ruleMark()
	return err == nil && string(memo) == memoText(wanted, now)
}

// rememberRules writes the memo; the rules must have been found as they are
// wanted, or written so, just now.
func (h *Host) rememberRules(wanted string) error {
	if h.opts.MemoFile == "" {
		return nil
	}
	now, err := h.ruleMark()
	if err != nil {
		return fmt.Errorf("fingerprint rules: %w", err)
	}
	if h.nftMarked != 0 && h.nftMarked != h.nftSeen {
		return nil // something has changed nftables since it was compared
	}
	text := memoText(wanted, now)
	if old, err := os.ReadFile(h.opts.MemoFile); err == nil && string(old) == text {
		return nil
	}
	if err := os.WriteFile(h.opts.MemoFile, []byte(text), 0o600); err != nil {
		return fmt.Errorf("remember rules in %s: %w", filepath.Base(h.opts.MemoFile), err)
	}
	return nil
}

// fingerprint hashes every table of the host's legacy iptables, but for counters.
func (h *Host) fingerprint() (string, error) {
	sum := sha256.New()
	err := h.ns.Do(func() error {
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		tables := strings.Fields(string(names))
		slices.Sort(tables)
		if len(tables) == 0 {
			return nil
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // a socket that was only asked
		for _, t := range tables {
			entries, err := tableEntries(fd, t)
			if err != nil {
				return fmt.Errorf("table %s: %w", t, err)
			}
			fmt.Fprintf(sum, "%s %d\n", t, len(entries))
			_, _ = sum.Write(entries) // a hash takes everything
		}
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// tableEntries reads a table as the kernel holds it, with what changes by itself
// set to zero. A table that changes between the two questions is asked again.
func tableEntries(fd int, table string) ([]byte, error) {
	for range 3 {
		info := make([]byte, infoLen)
		copy(info[:tableNameLen-1], table)
		if err := getsockopt(fd, soGetInfo, info); err != nil {
			return nil, err
		}
		size := binary.NativeEndian.Uint32(info[infoSizeAt:])
		buf := make([]byte, entriesAt+int(size))
		copy(buf[:tableNameLen-1], table)
		binary.NativeEndian.PutUint32(buf[tableNameLen:], size)
		err := getsockopt(fd, soGetEntries, buf)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return calm(buf[entriesAt:])
	}
	return nil, unix.EAGAIN
}

// calm zeroes counters and scratch fields of every entry.
func calm(entries []byte) ([]byte, error) {
	for rest := entries; len(rest) > 0; {
		if len(rest) < entryLen {
			return nil, errors.New("truncated entry")
		}
		next := int(binary.NativeEndian.Uint16(rest[entryNextAt:]))
		if next < entryLen || next > len(rest) {
			return nil, fmt.Errorf("entry of %d bytes", next)
		}
		clear(rest[entryCacheAt : entryCacheAt+4])
		clear(rest[entryFromAt:entryLen])
		rest = rest[next:]
	}
	return entries, nil
}

func getsockopt(fd, opt int, buf []byte) error {
	size := uint32(len(buf))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(opt),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return e
	}
	return nil
}
