package cluster

import (
	"fmt"

	"slipway/installer"
	"slipway/installer/pki"
)

// bootstrap gives the cluster's parts the rights that they need beyond the
// built-in ones.
func (p *planner) bootstrap() (installer.Phase, error) {
	ph := installer.Phase{Title: "Rights of nodes and components",
		About: "RBAC: nodes may ask for certificates and get them approved, and the network's agents may read and mark nodes."}
	manifest, err := render("rbac.yaml", map[string]any{})
	if err != nil {
		return ph, err
	}
	ph.Steps = []installer.Step{{Name: "rbac", Why: "Applied once, through the API, from one master.", Work: p.applied("rbac.yaml", manifest)}}
	if len(p.kubelets()) == 0 {
		return ph, nil
	}
	token, err := p.PKI.BootstrapToken()
	if err != nil {
		return ph, err
	}
	ph.Steps = append(ph.Steps, installer.Step{Name: "token", Why: "What a node shows before it has a certificate. It is good for a day, and there only while a node has not joined.", Work: []installer.Work{{
		Host: p.masters[0].Name, Items: []installer.Item{p.token(token)},
	}}})
	return ph, nil
}

// applied is a manifest that the first master applies. What others changed of
// it since is put right.
func (p *planner) applied(name string, manifest []byte) []installer.Work {
	file := installer.File{Path: manifestDir + "/" + name, Mode: 0o644, Content: manifest}
	return []installer.Work{{Host: p.masters[0].Name, Items: []installer.Item{file, p.appliedFile(file.Path)}}}
}

// appliedFile is that the API has what is in a file of the first master's.
func (p *planner) appliedFile(path string) installer.Action {
	const how = "--server-side --force-conflicts --field-manager slipway -f"
	ctl := kubectl(p.masters[0])
	return installer.Action{
		Name:  "the API has what is in " + path,
		Check: fmt.Sprintf("%s diff %s %s", ctl, how, path),
		// Kinds that are defined here may take a moment until they can be used.
		Do: fmt.Sprintf("for i in 1 2 3 4; do %[1]s apply %[2]s %[3]s && exit 0; sleep 1; done\n%[1]s apply %[2]s %[3]s", ctl, how, path),
	}
}

// token is the bootstrap token as the API checks it
// (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
func (p *planner) token(t pki.Token) installer.Action {
	ctl, secret := kubectl(p.masters[0]), "bootstrap-token-"+t.ID
	var names string
	for _, n := range p.kubelets() {
		names += " " + n.Name
	}
	return installer.Action{
		Name: "nodes can join", Secret: true,
		Check: fmt.Sprintf(`list=$(%[1]s get nodes -o jsonpath='{range .items[?(@.status.nodeInfo.kubeletVersion)]}{.metadata.name} {.status.nodeInfo.kubeletVersion}{"\n"}{end}') || exit 1
open=
for n in%[2]s; do printf '%%s\n' "$list" | grep -q "^$n v" || open=$n; done
[ -z "$open" ] || %[1]s --namespace kube-system get secret %[3]s`, ctl, names, secret),
		Do: fmt.Sprintf(`%s apply -f - <<SLIPWAY_TOKEN
apiVersion: v1
kind: Secret
metadata: {name: %s, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: %q
  token-secret: %q
  usage-bootstrap-authentication: "true"
  expiration: $(date -u -d '+24 hours' +%%Y-%%m-%%dT%%H:%%M:%%SZ)
SLIPWAY_TOKEN`, ctl, secret, t.ID, t.Secret),
		Back: fmt.Sprintf("%s --request-timeout=5s --namespace kube-system delete secret %s --ignore-not-found || true", ctl, secret),
	}
}
