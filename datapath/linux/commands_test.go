package linux_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"slipway/datapath/linux"
	"slipway/internal/run"
)

// What a plan shows an operator is true: typed into a fresh node, its commands
// make what Apply makes.
func TestShownCommandsDoWhatApplyDoes(t *testing.T) {
	for name, cfg := range variants(t) {
		t.Run(name, func(t *testing.T) {
			ns, h := machine(t)
			script := "set -e\n" + strings.ReplaceAll(strings.Join(cfg.Commands(), "\n"), "iptables -t", "iptables-legacy -t")
			_, err := run.Cmd{
				NS: ns, Name: "sh", Args: []string{"-c", script}, Env: append(os.Environ(), "XTABLES_LOCKFILE="+lockFile),
			}.Output(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if d := linux.Compare(cfg, read(t, h)); len(d) != 0 {
				t.Errorf("left to do after the commands:\n%s", commands(d))
			}
		})
	}
}
