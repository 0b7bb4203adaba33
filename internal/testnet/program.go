package testnet

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// BuiltEnv is slipway where it was built already, for tests that run on a machine
// without a toolchain: [Build] takes that.
const BuiltEnv = "SLIPWAY_TEST_PROGRAM"

// Build builds a program of this module, as it is shipped, without cgo; pkg is its
// import path.
func Build(path, pkg string) error {
	if built := os.Getenv(BuiltEnv); built != "" && pkg == "slipway/cmd/slipway" {
		return os.Symlink(built, path)
	}
	kept, err := Program(pkg)
	if err != nil {
		return err
	}
	return copyProgram(kept, path)
}

// Program is where a program of this module lies that was built as [Build] does.
// Linking takes longest: what came of it is kept, one for each checkout, and linked
// again only when the program is another. Nobody may change it.
func Program(pkg string) (string, error) {
	if built := os.Getenv(BuiltEnv); built != "" && pkg == "slipway/cmd/slipway" {
		return built, nil
	}
	kept, err := keptProgram(pkg)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	unlock, err := lockFile(kept + ".lock")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	defer unlock()
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", kept, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return kept, nil
}

// keptProgram is where a program of this checkout is kept.
func keptProgram(pkg string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	sum := sha256.Sum256(append(out, os.Getenv("GOFLAGS")...))
	dir := filepath.Join(cache, "slipway", "programs", fmt.Sprintf("%x", sum[:8]))
	return filepath.Join(dir, filepath.Base(pkg)), os.MkdirAll(dir, 0o755)
}

// copyProgram copies one, so that whoever changes the copy changes nobody else's.
func copyProgram(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // only read
	_ = os.Remove(to)
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := dst.Close(); err == nil {
			err = cerr
		}
	}()
	_, err = io.Copy(dst, src)
	return err
}
