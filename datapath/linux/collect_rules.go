package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"slipway/datapath"
	"slipway/internal/run"
)

// collectRules reads iptables in the backend that holds rules, and what
// nftables has beside it.
func (h *Host) collectRules(ctx context.Context, st *datapath.NetState, o CollectOptions) error {
	tables, legacy, err := h.ruleTables()
	if err != nil {
		return err
	}
	save, err := h.save(ctx, st, tables, legacy, o)
	if err != nil {
		return fmt.Errorf("read iptables: %w", err)
	}
	st.RuleSave = saveByTable(save)
	if !o.Counters {
		for name, table := range st.RuleSave {
			st.RuleSave[name] = withoutPolicyCounters(table)
		}
	}
	if foreign := foreignTables(tables, st.RuleBackend == "nft"); len(foreign) > 0 {
		if st.NFTables, err = h.listRuleset(ctx, foreign); err != nil {
			return err
		}
	}
	return nil
}

// ruleTables asks, without starting a program, who has tables.
func (h *Host) ruleTables() (tables []nftTable, legacy bool, err error) {
	err = h.ns.Do(func() error {
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("list iptables tables: %w", err)
		}
		legacy = strings.TrimSpace(string(names)) != ""
		tables, err = nftTables()
		return err
	})
	return tables, legacy, err
}

// save runs the right iptables-save, or takes what it said the last time.
func (h *Host) save(ctx context.Context, st *datapath.NetState, tables []nftTable, legacy bool, o CollectOptions) (string, error) {
	switch {
	case legacy:
		st.RuleBackend = "legacy"
		out, err := h.saveLegacy(ctx, o)
		if err != nil || !hasIPTablesNFT(tables) || decides(out) {
			return out, err
		}
		fallthrough // who has ever looked by iptables-legacy has its tables, with nothing in them
	case hasIPTablesNFT(tables):
		st.RuleBackend = "nft"
		return h.runSave(ctx, o.Counters, "iptables-nft-save", "iptables-save")
	}
	return "", nil
}

// decides reports whether what iptables-save printed does anything to packets.
func decides(save string) bool {
	return strings.Contains(save, "\n-A ") || strings.Contains(save, " DROP [")
}

func (h *Host) saveLegacy(ctx context.Context, o CollectOptions) (string, error) {
	if o.Counters || o.RuleCache == "" {
		return h.runSave(ctx, o.Counters, "iptables-legacy-save", "iptables-save")
	}
	before, err := h.fingerprint()
	if err != nil {
		return "", err
	}
	if kept, err := os.ReadFile(o.RuleCache); err == nil {
		if of, save, ok := strings.Cut(string(kept), "\n"); ok && of == before {
			return save, nil
		}
	}
	save, err := h.runSave(ctx, false, "iptables-legacy-save", "iptables-save")
	if err != nil {
		return "", err
	}
	after, err := h.fingerprint()
	if err != nil || after != before { // which of the two was saved is not known
		return save, err
	}
	// Rules that cannot be kept are read again the next time.
	_ = keep(o.RuleCache, before+"\n"+save)
	return save, nil
}

// keep replaces a file as a whole, as others may be reading it.
func keep(path, content string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("keep rules: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	_, err = tmp.WriteString(content)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("keep rules: %w", err)
	}
	return nil
}

// runSave runs the first of the programs that is installed.
func (h *Host) runSave(ctx context.Context, counters bool, names ...string) (string, error) {
	var args []string
	if counters {
		args = []string{"-c"}
	}
	for _, n := range names[:len(names)-1] {
		if p, err := exec.LookPath(n); err == nil {
			names = []string{p}
			break
		}
	}
	out, err := run.Cmd{NS: h.ns, Name: names[len(names)-1], Args: args, Env: h.environ()}.Output(ctx)
	return string(out), err
}

// saveByTable cuts iptables-save output into its tables, without the comments
// around them.
func saveByTable(save string) map[string]string {
	out := map[string]string{}
	for save != "" {
		begin := strings.Index(save, "*")
		if begin > 0 {
			if begin = strings.Index(save, "\n*") + 1; begin == 0 {
				break
			}
		}
		if begin < 0 {
			break
		}
		save = save[begin:]
		name, _, _ := strings.Cut(save[1:], "\n")
		end := strings.Index(save, "\nCOMMIT\n")
		if end < 0 {
			break
		}
		end += len("\nCOMMIT\n")
		out[name] = save[:end]
		save = save[end:]
	}
	return out
}

// withoutPolicyCounters zeroes the counters of built-in chains, which
// iptables-save prints in any case. Chains stand at the head of their table.
func withoutPolicyCounters(table string) string {
	head, rest, _ := strings.Cut(table, "\n")
	var b strings.Builder
	b.Grow(len(table))
	b.WriteString(head)
	b.WriteByte('\n')
	for strings.HasPrefix(rest, ":") {
		line, after, _ := strings.Cut(rest, "\n")
		if i := strings.LastIndex(line, " ["); i > 0 {
			line = line[:i]
		}
		b.WriteString(line)
		b.WriteString(" [0:0]\n")
		rest = after
	}
	b.WriteString(rest)
	return b.String()
}
