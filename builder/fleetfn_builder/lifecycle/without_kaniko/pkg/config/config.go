// Package config: settings of an extension, which is never run.
package config

import "time"

// KanikoDir would hold what an extension works with.
var KanikoDir string

type RegistryOptions struct{}

type CacheOptions struct {
	CacheTTL time.Duration
}

type KanikoOptions struct {
	CacheOptions
	BuildArgs                                 []string
	IgnorePaths                               []string
	CacheRepo, CustomPlatform, DockerfilePath string
	SnapshotMode, SrcContext                  string
	Cache, CacheCopyLayers, CacheRunLayers    bool
	Cleanup, IgnoreVarRun, InitialFSUnpacked  bool
	NoPush, Reproducible                      bool
}
