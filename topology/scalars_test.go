package topology

import (
	"encoding"
	"testing"
	"time"
)

// scalar is a type that reads and writes itself.
type scalar interface {
	encoding.TextMarshaler
	encoding.TextUnmarshaler
}

func rate() (scalar, func() any)     { v := new(Rate); return v, func() any { return *v } }
func interval() (scalar, func() any) { v := new(Interval); return v, func() any { return *v } }
func delay() (scalar, func() any)    { v := new(Duration); return v, func() any { return *v } }
func loss() (scalar, func() any)     { v := new(Percent); return v, func() any { return *v } }
func ports() (scalar, func() any)    { v := new(PortRange); return v, func() any { return *v } }
func mtuText() (scalar, func() any)  { v := new(MTU); return v, func() any { return *v } }

func TestScalars(t *testing.T) {
	for _, tc := range []struct {
		in   string
		into func() (scalar, func() any)
		want any    // nil: refused
		out  string // as written back
	}{
		{"1Gbit", rate, Rate(1e9), "1Gbit"},
		{"1gbit", rate, Rate(1e9), "1Gbit"},
		{"1500Mbit", rate, Rate(15e8), "1500Mbit"},
		{"1.5 Gbit", rate, Rate(15e8), "1500Mbit"},
		{"9600", rate, Rate(9600), "9600bit"},
		{"0", rate, Rate(0), "0"},
		{"0.5bit", rate, nil, ""},
		{"-1Mbit", rate, nil, ""},
		{"1MB", rate, nil, ""},
		{"99999999999Tbit", rate, nil, ""},
		{"", rate, nil, ""},
		{"1ms", delay, Duration(time.Millisecond), "1ms"},
		{"1500us", delay, Duration(1500 * time.Microsecond), "1.5ms"},
		{"10s", delay, Duration(10 * time.Second), "10s"},
		{"11s", delay, nil, ""},
		{"-1ms", delay, nil, ""},
		{"5", delay, nil, ""},
		{"500ms", interval, Interval(500 * time.Millisecond), "500ms"},
		{"1500us", interval, nil, ""},
		{"0s", interval, nil, ""},
		{"1ms", interval, Interval(time.Millisecond), "1ms"},
		{"50s", interval, Interval(50 * time.Second), "50s"},
		{"50001ms", interval, nil, ""},
		{"500", interval, nil, ""},
		{"0.1%", loss, Percent(0.1), "0.1%"},
		{"100%", loss, Percent(100), "100%"},
		{"0", loss, Percent(0), "0%"},
		{"101%", loss, nil, ""},
		{"1", loss, nil, ""},
		{"1e1%", loss, nil, ""},
		{"%", loss, nil, ""},
		{"30000-32767", ports, PortRange{30000, 32767}, "30000-32767"},
		{"80-80", ports, PortRange{80, 80}, "80-80"},
		{"0-80", ports, nil, ""},
		{"90-80", ports, nil, ""},
		{"80-70000", ports, nil, ""},
		{"auto", mtuText, MTU(0), "auto"},
		{"1450", mtuText, MTU(1450), "1450"},
		{"0", mtuText, nil, ""},
		{"70000", mtuText, nil, ""},
	} {
		s, value := tc.into()
		err := s.UnmarshalText([]byte(tc.in))
		if tc.want == nil {
			if err == nil {
				t.Errorf("%q was read as %v", tc.in, value())
			}
			continue
		}
		if err != nil || value() != tc.want {
			t.Errorf("%q was read as %v (%v), want %v", tc.in, value(), err, tc.want)
		}
		if out, _ := s.MarshalText(); string(out) != tc.out {
			t.Errorf("%q is written as %q, want %q", tc.in, out, tc.out)
		}
	}
}
