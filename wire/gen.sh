#!/bin/sh
# Copyright The Meltemi Authors
# SPDX-License-Identifier: Apache-2.0
#
# Generates the Go code of every .proto below this folder.
# Needs protoc and google.golang.org/protobuf/cmd/protoc-gen-go in PATH.
set -eu
cd "$(dirname "$0")"
for proto in */*.proto; do
	protoc -I .. --go_out=.. --go_opt=paths=source_relative "wire/$proto"
done
