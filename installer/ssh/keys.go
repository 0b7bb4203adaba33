package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keyring reads key files once, however many hosts there are.
type keyring struct {
	passphrase func(context.Context, string) ([]byte, error)
	mu         sync.Mutex
	read       map[string]keyFile
}

// keyFile is a private key, or why there is none.
type keyFile struct {
	signer gossh.Signer
	public gossh.PublicKey // of a key that is encrypted still
	note   string
}

func (k *keyring) file(ctx context.Context, path string) keyFile {
	k.mu.Lock() // held while somebody types: nobody is asked twice
	defer k.mu.Unlock()
	if f, ok := k.read[path]; ok {
		return f
	}
	f := k.load(ctx, path)
	if ctx.Err() == nil {
		k.read[path] = f
	}
	return f
}

func (k *keyring) load(ctx context.Context, path string) keyFile {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return keyFile{}
	}
	if err != nil {
		return keyFile{note: fmt.Sprintf("key %v", err)}
	}
	signer, err := gossh.ParsePrivateKey(data)
	var locked *gossh.PassphraseMissingError
	if errors.As(err, &locked) {
		public := locked.PublicKey
		if public == nil {
			public = publicKey(path)
		}
		if k.passphrase == nil {
			return keyFile{public: public, note: fmt.Sprintf("key %s is encrypted: load it into the agent (ssh-add %s)", path, path)}
		}
		phrase, perr := k.passphrase(ctx, path)
		if perr != nil {
			return keyFile{public: public, note: fmt.Sprintf("key %s is encrypted: %v", path, perr)}
		}
		if signer, err = gossh.ParsePrivateKeyWithPassphrase(data, phrase); err != nil {
			return keyFile{public: public, note: fmt.Sprintf("key %s is encrypted, and not with that passphrase", path)}
		}
	}
	if err != nil {
		return keyFile{note: fmt.Sprintf("key %s: %v", path, err)}
	}
	return keyFile{signer: withCertificate(signer, path)}
}

// publicKey reads the public key beside a private one; nil if there is none.
func publicKey(path string) gossh.PublicKey {
	data, err := os.ReadFile(path + ".pub")
	if err != nil {
		return nil
	}
	k, _, _, _, err := gossh.ParseAuthorizedKey(data)
	if err != nil {
		return nil
	}
	return k
}

// withCertificate adds a key's certificate, which lies beside it (ssh-keygen(1),
// CERTIFICATES).
func withCertificate(s gossh.Signer, path string) gossh.Signer {
	data, err := os.ReadFile(path + "-cert.pub")
	if err != nil {
		return s
	}
	k, _, _, _, err := gossh.ParseAuthorizedKey(data)
	if err != nil {
		return s
	}
	cert, ok := k.(*gossh.Certificate)
	if !ok {
		return s
	}
	if both, err := gossh.NewCertSigner(cert, s); err == nil {
		return both
	}
	return s
}

// offer is what is tried to log in with.
type offer struct {
	signers []gossh.Signer
	names   []string
	notes   []string
	agent   net.Conn // signs while the handshake lasts; nil if none
}

func (o *offer) close() {
	if o.agent != nil {
		_ = o.agent.Close()
	}
}

func (o *offer) add(s gossh.Signer, name string) {
	o.signers, o.names = append(o.signers, s), append(o.names, name)
}

// offer collects the keys for a host. Servers count tries (sshd: MaxAuthTries 6):
// the agent's keys that the configuration names come first, then files, then the
// agent's others.
func (k *keyring) offer(ctx context.Context, r route) *offer {
	o := &offer{}
	held := o.fromAgent(r.agent)
	for _, path := range r.keys {
		f := k.agentFirst(ctx, path, held)
		if s, ok := held[marshalled(f.public)]; ok {
			o.add(s, "agent "+path)
			delete(held, marshalled(f.public))
			continue
		}
		if f.note != "" {
			o.notes = append(o.notes, f.note)
		}
		if f.signer != nil {
			o.add(f.signer, path)
		}
	}
	if !r.onlyKeys {
		for _, s := range held {
			o.add(s, "agent "+gossh.FingerprintSHA256(s.PublicKey()))
		}
	}
	return o
}

// agentFirst leaves a file alone whose key the agent holds: nobody has to type.
func (k *keyring) agentFirst(ctx context.Context, path string, held map[string]gossh.Signer) keyFile {
	if public := publicKey(path); public != nil {
		if _, ok := held[marshalled(public)]; ok {
			return keyFile{public: public}
		}
	}
	return k.file(ctx, path)
}

func marshalled(k gossh.PublicKey) string {
	if k == nil {
		return ""
	}
	return string(k.Marshal())
}

func (o *offer) fromAgent(socket string) map[string]gossh.Signer {
	if socket == "" {
		return nil
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		o.notes = append(o.notes, fmt.Sprintf("the agent does not answer: %v", err))
		return nil
	}
	o.agent = conn
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		o.notes = append(o.notes, fmt.Sprintf("the agent: %v", err))
	}
	held := map[string]gossh.Signer{}
	for _, s := range signers {
		held[marshalled(s.PublicKey())] = s
	}
	return held
}
