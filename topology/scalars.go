package topology

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// ownType describes a type that reads itself from one scalar.
type ownType struct {
	code string // of the diagnostic when it cannot
	want string // "a rate such as 100Mbit"
}

var ownTypes = map[reflect.Type]ownType{
	reflect.TypeFor[netip.Addr]():   {code: "bad-address", want: "an IPv4 address such as 192.168.233.10"},
	reflect.TypeFor[netip.Prefix](): {code: "bad-cidr", want: "a CIDR such as 10.244.0.0/16"},
	reflect.TypeFor[MTU]():          {code: "bad-mtu", want: "an MTU: a number of bytes, or auto"},
	reflect.TypeFor[PortRange]():    {code: "bad-port-range", want: "a port range such as 30000-32767"},
	reflect.TypeFor[Rate]():         {code: "bad-rate", want: "a rate such as 100Mbit or 1Gbit"},
	reflect.TypeFor[Duration]():     {code: "bad-delay", want: "a delay such as 500us or 1ms (up to 10s)"},
	reflect.TypeFor[Interval]():     {code: "bad-interval", want: "a time of whole milliseconds such as 500ms or 5s (1ms to 50s)"},
	reflect.TypeFor[Percent]():      {code: "bad-loss", want: "a share such as 0.1% (0% to 100%)"},
}

// enum says which words a type may hold, and the code if it does not.
type enum struct {
	code  string
	words []string
}

var enums = map[reflect.Type]enum{
	reflect.TypeFor[ModeName]():           {"unknown-mode", words(ModeNames()...)},
	reflect.TypeFor[Role]():               {"unknown-role", words(Roles()...)},
	reflect.TypeFor[ProgramName]():        {"unknown-program", words(ProgramNames()...)},
	reflect.TypeFor[Components]():         {"unknown-value", words(ComponentsNone, ComponentsLight, ComponentsFull)},
	reflect.TypeFor[Implementation]():     {"unknown-value", words(ImplementationSlipway, ImplementationUpstream)},
	reflect.TypeFor[UDPImplementation]():  {"unknown-value", words(UDPSimple, UDPBatched, UDPeBPF)},
	reflect.TypeFor[BGPTopology]():        {"unknown-value", words(FullMesh, RouteReflectors)},
	reflect.TypeFor[IPIPPolicy]():         {"unknown-value", words(IPIPAlways, IPIPCrossSubnet)},
	reflect.TypeFor[IPIPImplementation](): {"unknown-value", words(IPIPAuto, IPIPKernel, IPIPeBPF, IPIPUserspace)},
	reflect.TypeFor[ProxyMode]():          {"unknown-value", words(ProxyIPTables, ProxyNFTables)},
}

// Roles lists the roles that a node may have.
func Roles() []Role { return []Role{RoleControlPlane, RoleEtcd, RoleWorker, RoleLoadBalancer} }

func words[T ~string](in ...T) []string {
	out := make([]string, len(in))
	for i, w := range in {
		out[i] = string(w)
	}
	return out
}

func (d *decoder) checkEnum(path string, n ast.Node, text string, t reflect.Type) {
	e, ok := enums[t]
	if !ok || slices.Contains(e.words, text) {
		return
	}
	d.errorAt(n, path, e.code, "%q is none of %s%s", shorten(text), strings.Join(e.words, ", "), suggest(text, e.words))
}

var errForm = errors.New("not of the expected form")

// MarshalText writes "auto" for zero, else the number.
func (m MTU) MarshalText() ([]byte, error) {
	if m == 0 {
		return []byte("auto"), nil
	}
	return strconv.AppendInt(nil, int64(m), 10), nil
}

// UnmarshalText reads "auto" or a number of bytes.
func (m *MTU) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*m = 0
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n <= 0 || n > maxMTU {
		return errForm
	}
	*m = MTU(n)
	return nil
}

// MarshalJSON writes a number, or "auto" for zero.
func (m MTU) MarshalJSON() ([]byte, error) {
	if m == 0 {
		return []byte(`"auto"`), nil
	}
	return m.MarshalText()
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *MTU) UnmarshalJSON(data []byte) error {
	if err := m.UnmarshalText([]byte(strings.Trim(string(data), `"`))); err != nil {
		return fmt.Errorf("MTU %s: %w", data, err)
	}
	return nil
}

// MarshalText writes "first-last".
func (p PortRange) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String is "first-last".
func (p PortRange) String() string { return fmt.Sprintf("%d-%d", p.First, p.Last) }

// Contains reports whether the range holds the port.
func (p PortRange) Contains(port int) bool { return p.First <= port && port <= p.Last }

// UnmarshalText reads "first-last".
func (p *PortRange) UnmarshalText(text []byte) error {
	first, last, ok := strings.Cut(string(text), "-")
	if !ok {
		return errForm
	}
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return errForm
	}
	b, err := strconv.ParseUint(last, 10, 16)
	if err != nil || a == 0 || a > b {
		return errForm
	}
	*p = PortRange{int(a), int(b)}
	return nil
}

// rateUnits are tc's decimal units (tc(8), UNITS), largest first.
var rateUnits = []struct {
	name string
	bits uint64
}{{"Tbit", 1e12}, {"Gbit", 1e9}, {"Mbit", 1e6}, {"Kbit", 1e3}, {"bit", 1}}

// String writes the rate in the largest unit that leaves a whole number.
func (r Rate) String() string {
	for _, u := range rateUnits {
		if r != 0 && uint64(r)%u.bits == 0 {
			return strconv.FormatUint(uint64(r)/u.bits, 10) + u.name
		}
	}
	return "0"
}

// MarshalText writes "1Gbit".
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a number with one of tc's units, in either case; a
// number alone is bit/s.
func (r *Rate) UnmarshalText(text []byte) error {
	s := strings.ToLower(strings.TrimSpace(string(text)))
	factor := uint64(1)
	for _, u := range rateUnits {
		if rest, ok := strings.CutSuffix(s, strings.ToLower(u.name)); ok {
			s, factor = strings.TrimSpace(rest), u.bits
			break
		}
	}
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return errForm
	}
	x, ok := new(big.Rat).SetString(s)
	if !ok {
		return errForm
	}
	x.Mul(x, new(big.Rat).SetUint64(factor))
	if !x.IsInt() || !x.Num().IsUint64() || x.Num().Uint64() > math.MaxInt64 {
		return errForm
	}
	*r = Rate(x.Num().Uint64())
	return nil
}

// maxDelay bounds a segment's delay: longer ones only make every program in
// the lab time out.
const maxDelay = Duration(10 * time.Second)

// String is Go's notation.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads Go's notation, not negative.
func (d *Duration) UnmarshalText(text []byte) error {
	x, err := time.ParseDuration(string(text))
	if err != nil || x < 0 || Duration(x) > maxDelay {
		return errForm
	}
	*d = Duration(x)
	return nil
}

// The bounds of intervals. Etcd's are whole milliseconds, and no election may take
// longer than 50 s (go.etcd.io/etcd server/embed/config.go, maxElectionMs).
const (
	minInterval = Interval(time.Millisecond)
	maxInterval = Interval(50 * time.Second)
)

// String is Go's notation.
func (i Interval) String() string { return time.Duration(i).String() }

// Milliseconds is the interval as programs take it.
func (i Interval) Milliseconds() int64 { return time.Duration(i).Milliseconds() }

// MarshalText writes Go's notation.
func (i Interval) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads Go's notation.
func (i *Interval) UnmarshalText(text []byte) error {
	x, err := time.ParseDuration(string(text))
	if err != nil || Interval(x) < minInterval || Interval(x) > maxInterval || x%time.Millisecond != 0 {
		return errForm
	}
	*i = Interval(x)
	return nil
}

// String is "0.1%".
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// MarshalText writes "0.1%".
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads "0.1%"; the sign may only be left out for 0.
func (p *Percent) UnmarshalText(text []byte) error {
	s, signed := strings.CutSuffix(string(text), "%")
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return errForm
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || x < 0 || x > 100 || !signed && x != 0 {
		return errForm
	}
	*p = Percent(x)
	return nil
}
