package units

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const etcd = `# the members' state
[Unit]
Description=etcd, the cluster's database
After=network-online.target time-sync.target
Wants=network-online.target

[Service]
Type=notify
Environment="ETCD_NAME=m 1" ETCD_DEBUG=
EnvironmentFile=-/etc/default/etcd
ExecStartPre=-/bin/mkdir -p /var/lib/etcd
ExecStart=/usr/local/bin/etcd \
  --name ${ETCD_NAME} \
  "--data-dir=/var/lib/etcd data" $EXTRA 100%%
Restart=always
RestartSec=2min 500ms
TimeoutStartSec=infinity
LimitNOFILE=65536
LimitCORE=1:infinity
OOMScoreAdjust=-999
ProtectHome=yes
Delegate=yes

[Install]
WantedBy=multi-user.target
`

func TestParse(t *testing.T) {
	s, err := Parse("etcd.service", []byte(etcd))
	if err != nil {
		t.Fatal(err)
	}
	score := -999
	want := &Service{
		Name: "etcd.service", Description: "etcd, the cluster's database", After: []string{"network-online.target", "time-sync.target"},
		Wants: []string{"network-online.target"}, WantedBy: []string{"multi-user.target"}, Type: Notify,
		StartPre:    []Command{{Argv: []string{"/bin/mkdir", "-p", "/var/lib/etcd"}, MayFail: true}},
		Start:       []Command{{Argv: []string{"/usr/local/bin/etcd", "--name", "${ETCD_NAME}", "--data-dir=/var/lib/etcd data", "$EXTRA", "100%"}}},
		Environment: []string{"ETCD_NAME=m 1", "ETCD_DEBUG="}, EnvironmentFiles: []EnvironmentFile{{"/etc/default/etcd", true}},
		Restart: RestartAlways, RestartDelay: 2*time.Minute + 500*time.Millisecond, StopTimeout: 90 * time.Second,
		StartLimit: 5, StartLimitWithin: 10 * time.Second, KillMode: KillGroup,
		Limits: []Limit{{"NOFILE", 65536, 65536}, {"CORE", 1, Infinity}}, OOMScoreAdjust: &score, Ignored: []string{"Service.ProtectHome"},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	env := map[string]string{"ETCD_NAME": "m 1", "EXTRA": "-a  -b"}
	if diff := cmp.Diff([]string{"/usr/local/bin/etcd", "--name", "m 1", "--data-dir=/var/lib/etcd data", "-a", "-b", "100%"}, s.Start[0].Expand(func(n string) string { return env[n] })); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"[Service]\nType=simple\n":                               "no ExecStart",
		"[Service]\nExecStart=etcd\n":                            "not an absolute path",
		"[Service]\nExecStart=/bin/a\nExecStart=/bin/b\n":        "more than one ExecStart",
		"[Service]\nExecStart=/bin/a\nRestart=perhaps\n":         "want one of [no always on-failure]",
		"[Service]\nExecStart=/bin/a 'b\n":                       "not closed",
		"[Service]\nExecStart=/bin/a %i\n":                       "specifiers",
		"[Service]\nExecStart=/bin/a\nRestartSec=soon\n":         "time span",
		"[Service]\nExecStart=/bin/a\nLimitNOFILE=many\n":        "want a number or infinity",
		"[Service]\nExecStart=/bin/a\nEnvironment=X\n":           "no assignment",
		"[Service]\nExecStart=/bin/a\nWorkingDirectory=x\n":      "absolute",
		"[Service]\nType=oneshot\nExecStart=/a\nRestart=always":  "oneshot",
		"[Service]\nExecStart=/bin/a\nRemainAfterExit=perhaps\n": "want yes or no",
	} {
		if _, err := Parse("x.service", []byte(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "x.service") {
			t.Errorf("%q gave %v, not %q", text, err, want)
		}
	}
}

func TestEmptyValueTakesBack(t *testing.T) {
	s, err := Parse("x.service", []byte("[Service]\nExecStart=/bin/a\nExecStart=\nExecStart=/bin/b\nEnvironment=A=1\nEnvironment=\n"))
	if err != nil || len(s.Start) != 1 || s.Start[0].Argv[0] != "/bin/b" || s.Environment != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestParseEnvironment(t *testing.T) {
	got, err := ParseEnvironment("# comment\nA=1\n; other\n\nB=\"two words\"\n C = '3' \nD=\n")
	if diff := cmp.Diff([]string{"A=1", "B=two words", "C=3", "D="}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := ParseEnvironment("A=1\nnonsense\n"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Error(err)
	}
}

func TestOrder(t *testing.T) {
	unit := func(name string, after ...string) *Service { return &Service{Name: name, After: after} }
	out, err := Order([]*Service{unit("kubelet", "containerd"), unit("apiserver", "etcd", "network.target"), unit("etcd"), unit("containerd")})
	var names []string
	for _, s := range out {
		names = append(names, s.Name)
	}
	if diff := cmp.Diff([]string{"etcd", "apiserver", "containerd", "kubelet"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := Order([]*Service{unit("a", "b"), unit("b", "a")}); err == nil || !strings.Contains(err.Error(), "after itself") {
		t.Error(err)
	}
}
