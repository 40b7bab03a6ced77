// Package image: how an extension would find the image that it extends.
package image

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/osscontainertools/kaniko/pkg/config"
)

var RetrieveRemoteImage func(name string, options config.RegistryOptions, platform string) (v1.Image, error)
