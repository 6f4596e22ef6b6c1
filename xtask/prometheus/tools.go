//go:build tools

// Package tools names the program that this module exists to build. The module is a wrapper: Prometheus' own go.mod has replace
// lines, which `go install` refuses, and go.sum here says exactly what is downloaded. `cargo xtask prometheus` builds it;
// after another version in go.mod: `go mod tidy` in this folder.
package tools

import _ "github.com/prometheus/prometheus/cmd/prometheus"
