//go:build tools

// Package buildkit names the programs that the benchmark builds from the module that go.mod pins.
package buildkit

import (
	_ "github.com/moby/buildkit/cmd/buildctl"
	_ "github.com/moby/buildkit/cmd/buildkitd"
)
