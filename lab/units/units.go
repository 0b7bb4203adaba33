// Package units reads systemd's service units, as far as services of a cluster
// use them: what to run, with what around it, and when again. It is pure; who
// runs them is slipway/lab/initd.
package units

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

// Service is a service unit.
type Service struct {
	Name        string // "etcd.service"
	Description string
	// After are the units that are started before, Requires those that must run
	// as well, Wants those that are tried.
	After, Requires, Wants []string
	WantedBy               []string

	Type Type
	// Commands in the order in which they run; Start has one, but for oneshots.
	StartPre, Start, StartPost, Reload, Stop []Command
	Environment                              []string // "NAME=value"
	EnvironmentFiles                         []EnvironmentFile
	Directory                                string
	User                                     string
	RuntimeDirectories, StateDirectories     []string // below /run and /var/lib

	Restart                   Restart
	RestartDelay              time.Duration
	StartTimeout, StopTimeout time.Duration
	// StartLimit is how many starts may follow each other within StartLimitWithin.
	StartLimit       int
	StartLimitWithin time.Duration
	KillMode         KillMode
	RemainAfterExit  bool
	Limits           []Limit
	OOMScoreAdjust   *int
	// Delegate and what else is known to have no effect here is not in Ignored:
	// those are settings that a reader of the unit might count on.
	Ignored []string // "Section.Name"
}

// Type is how a service says that it is up.
type Type string

// The types.
const (
	Simple  Type = "simple"
	Exec    Type = "exec"
	Notify  Type = "notify"
	Oneshot Type = "oneshot"
)

// Restart is when a service that ended is started again.
type Restart string

// The conditions.
const (
	RestartNo        Restart = "no"
	RestartAlways    Restart = "always"
	RestartOnFailure Restart = "on-failure"
)

// KillMode is who gets the signal to stop.
type KillMode string

// The modes.
const (
	KillGroup   KillMode = "control-group"
	KillProcess KillMode = "process"
	KillMixed   KillMode = "mixed"
)

// EnvironmentFile is a file of assignments.
type EnvironmentFile struct {
	Path     string
	Optional bool
}

// Defaults of systemd-system.conf(5).
const (
	defaultTimeout    = 90 * time.Second
	defaultDelay      = 100 * time.Millisecond
	defaultStartLimit = 5
	defaultWithin     = 10 * time.Second
)

// Parse reads a unit. Settings that cannot be understood are errors, ones that
// are not known are listed.
func Parse(name string, text []byte) (*Service, error) {
	options, err := unit.DeserializeOptions(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("unit %s: %w", name, err)
	}
	s := &Service{
		Name: name, Restart: RestartNo, RestartDelay: defaultDelay, StartTimeout: defaultTimeout, StopTimeout: defaultTimeout,
		StartLimit: defaultStartLimit, StartLimitWithin: defaultWithin, KillMode: KillGroup,
	}
	for _, o := range options {
		if err := s.set(o.Section, o.Name, o.Value); err != nil {
			return nil, fmt.Errorf("unit %s: [%s] %s=%s: %w", name, o.Section, o.Name, o.Value, err)
		}
	}
	if s.Type == "" {
		s.Type = Simple
	}
	return s, s.check()
}

func (s *Service) check() error {
	switch {
	case len(s.Start) == 0:
		return fmt.Errorf("unit %s: there is no ExecStart", s.Name)
	case len(s.Start) > 1 && s.Type != Oneshot:
		return fmt.Errorf("unit %s: more than one ExecStart, which only Type=oneshot may have", s.Name)
	case s.Type == Oneshot && s.Restart == RestartAlways:
		return fmt.Errorf("unit %s: Restart=always with Type=oneshot", s.Name)
	}
	return nil
}

// harmless are settings that make no difference in a lab, whose nodes have
// nothing to protect from the service.
var harmless = []string{
	"Unit.Documentation", "Service.Delegate", "Service.TasksMax", "Service.Slice", "Service.CPUAccounting", "Service.MemoryAccounting",
	"Service.IOAccounting", "Service.StandardOutput", "Service.StandardError", "Service.SyslogIdentifier", "Service.NotifyAccess",
	"Unit.DefaultDependencies", "Service.PIDFile",
}

// set takes one line of a unit in. An empty value takes back what came before.
func (s *Service) set(section, name, value string) error {
	key := section + "." + name
	if set, ok := lists[key]; ok {
		return set(s, value)
	}
	if set, ok := settings[key]; ok {
		return set(s, value)
	}
	if !slices.Contains(harmless, key) {
		s.Ignored = append(s.Ignored, key)
	}
	return nil
}

// lists are settings of several words or lines.
var lists = map[string]func(s *Service, v string) error{
	"Unit.After":               func(s *Service, v string) error { return words(&s.After, v) },
	"Unit.Requires":            func(s *Service, v string) error { return words(&s.Requires, v) },
	"Unit.BindsTo":             func(s *Service, v string) error { return words(&s.Requires, v) },
	"Unit.Wants":               func(s *Service, v string) error { return words(&s.Wants, v) },
	"Install.WantedBy":         func(s *Service, v string) error { return words(&s.WantedBy, v) },
	"Service.ExecStartPre":     func(s *Service, v string) error { return command(&s.StartPre, v) },
	"Service.ExecStart":        func(s *Service, v string) error { return command(&s.Start, v) },
	"Service.ExecStartPost":    func(s *Service, v string) error { return command(&s.StartPost, v) },
	"Service.ExecReload":       func(s *Service, v string) error { return command(&s.Reload, v) },
	"Service.ExecStop":         func(s *Service, v string) error { return command(&s.Stop, v) },
	"Service.Environment":      environment,
	"Service.EnvironmentFile":  environmentFile,
	"Service.RuntimeDirectory": func(s *Service, v string) error { return words(&s.RuntimeDirectories, v) },
	"Service.StateDirectory":   func(s *Service, v string) error { return words(&s.StateDirectories, v) },
}

// settings are those of one value.
var settings = map[string]func(s *Service, v string) error{
	"Unit.Description":           func(s *Service, v string) error { s.Description = v; return nil },
	"Unit.StartLimitBurst":       func(s *Service, v string) error { return number(&s.StartLimit, v) },
	"Unit.StartLimitIntervalSec": func(s *Service, v string) error { return duration(&s.StartLimitWithin, v) },
	"Service.Type":               func(s *Service, v string) error { return oneOf(&s.Type, v, Simple, Exec, Notify, Oneshot) },
	"Service.Restart": func(s *Service, v string) error {
		return oneOf(&s.Restart, v, RestartNo, RestartAlways, RestartOnFailure)
	},
	"Service.RestartSec":       func(s *Service, v string) error { return duration(&s.RestartDelay, v) },
	"Service.TimeoutStartSec":  func(s *Service, v string) error { return duration(&s.StartTimeout, v) },
	"Service.TimeoutStopSec":   func(s *Service, v string) error { return duration(&s.StopTimeout, v) },
	"Service.KillMode":         func(s *Service, v string) error { return oneOf(&s.KillMode, v, KillGroup, KillProcess, KillMixed) },
	"Service.RemainAfterExit":  func(s *Service, v string) error { return truth(&s.RemainAfterExit, v) },
	"Service.WorkingDirectory": func(s *Service, v string) error { s.Directory = v; return absolute(v) },
	"Service.User":             func(s *Service, v string) error { s.User = v; return nil },
	"Service.OOMScoreAdjust":   func(s *Service, v string) error { s.OOMScoreAdjust = new(int); return number(s.OOMScoreAdjust, v) },
	"Service.LimitNOFILE":      func(s *Service, v string) error { return s.limit("NOFILE", v) },
	"Service.LimitNPROC":       func(s *Service, v string) error { return s.limit("NPROC", v) },
	"Service.LimitCORE":        func(s *Service, v string) error { return s.limit("CORE", v) },
	"Service.LimitMEMLOCK":     func(s *Service, v string) error { return s.limit("MEMLOCK", v) },
}

func words(to *[]string, v string) error {
	if v == "" {
		*to = nil
		return nil
	}
	*to = append(*to, strings.Fields(v)...)
	return nil
}

func command(to *[]Command, v string) error {
	if v == "" {
		*to = nil
		return nil
	}
	c, err := parseCommand(v)
	*to = append(*to, c)
	return err
}

func environment(s *Service, v string) error {
	if v == "" {
		s.Environment = nil
		return nil
	}
	assignments, err := split(v)
	for _, a := range assignments {
		if name, _, ok := strings.Cut(a, "="); !ok || name == "" {
			return fmt.Errorf("%q is no assignment", a)
		}
	}
	s.Environment = append(s.Environment, assignments...)
	return err
}

func environmentFile(s *Service, v string) error {
	if v == "" {
		s.EnvironmentFiles = nil
		return nil
	}
	file, optional := strings.CutPrefix(v, "-")
	s.EnvironmentFiles = append(s.EnvironmentFiles, EnvironmentFile{file, optional})
	return absolute(file)
}

func absolute(file string) error {
	if !path.IsAbs(file) {
		return fmt.Errorf("not an absolute path")
	}
	return nil
}

func oneOf[T ~string](to *T, v string, values ...T) error {
	if !slices.Contains(values, T(v)) {
		return fmt.Errorf("want one of %v", values)
	}
	*to = T(v)
	return nil
}

func number(to *int, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil {
		return fmt.Errorf("want a number")
	}
	*to = n
	return nil
}

// truth is a boolean of systemd.syntax(7).
func truth(to *bool, v string) error {
	switch strings.ToLower(v) {
	case "1", "yes", "true", "on", "y", "t":
		*to = true
	case "0", "no", "false", "off", "n", "f":
		*to = false
	default:
		return fmt.Errorf("want yes or no")
	}
	return nil
}

// duration is a time span of systemd.time(7): seconds where no unit is given.
// Zero and infinity are no limit.
func duration(to *time.Duration, v string) error {
	if v == "infinity" {
		*to = 0
		return nil
	}
	var total time.Duration
	for _, f := range strings.Fields(v) {
		if n, err := strconv.ParseFloat(f, 64); err == nil {
			total += time.Duration(n * float64(time.Second))
			continue
		}
		d, err := time.ParseDuration(strings.ReplaceAll(strings.ReplaceAll(f, "min", "m"), "sec", "s"))
		if err != nil {
			return fmt.Errorf("want a time span: seconds, or with a unit: 5s, 1min")
		}
		total += d
	}
	*to = total
	return nil
}
