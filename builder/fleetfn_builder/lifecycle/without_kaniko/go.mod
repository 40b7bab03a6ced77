// What the lifecycle names of Kaniko, without what it does.
module github.com/osscontainertools/kaniko

go 1.26

require github.com/google/go-containerregistry v0.20.6
