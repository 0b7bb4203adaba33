// Package installer installs real components in supervised nodes, on real
// networks, by the plans and the engine that real hosts get.
package installer

import (
	"testing"

	"slipway/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
