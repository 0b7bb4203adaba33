// Package balance fails what stands before the API servers, and the API servers,
// while clients go on: real balancers and keepalived, put there by the installer.
package balance

import (
	"testing"

	"slipway/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
