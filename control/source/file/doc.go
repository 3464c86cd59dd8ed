// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package file is a source: folders of YAML files, watched.
//
//	file.go      Config, New, Run: look, wait for changes, look again
//	scan.go      what is in the folders now, and what changed since the last look: all, or what was reported
//	walk.go      all that is in the folders, whatever of it cannot be read
//	shelf.go     the last good version of each object, kept for the next start
//	claims.go    which document decides about which object
//	split.go     a file's text to documents
//	tree.go      a document's text to a tree with lines, within limits
//	parse.go     a tree to an object
//	message.go   a tree to one of Istio's specifications, checked field by field
//	service.go   a tree to a Kubernetes Service
//	kinds.go     which kinds are read, and what is said about the others
//
// # What may be relied upon
//
// Files ending in .yaml, .yml or .json are read, in all folders below the given ones, in the order of
// their paths; hidden files and folders and editors' temporary files are not.
// Every field that is not known, every kind that is not read and everything that is no YAML is named
// with file and line. A document with such a problem is refused; the other documents go on.
//
//   - The last good version of an object stays in force while a document that claims it is refused; with
//     Config.Keep also over the end of the process, until a look finds that no document claims the object.
//   - A document that cannot be read claims the object that its lines "kind:", "namespace:" and "name:" name. If
//     they name none that the file held before, nothing that the file held is removed until
//     the document can be read or is gone. If it names one of which nothing is known, that object is reported as
//     refused, so that something may stand in for it.
//   - Of two documents that claim one object the first wins, by path, then by place in the file. The other is reported.
//   - A file or folder that cannot be read keeps what it held, and so does a link that leads nowhere; what is beside it is
//     read. A link that leads back to a folder that it is in is named, and not followed.
//   - A file that is gone takes its objects along, and so does a folder, unless it is one of Config.Paths: a folder, or
//     single file, that somebody has named is meant to be there, so its absence is a mishap such as a volume that is not
//     mounted. It keeps what it held until it is there again; one that is there and empty holds nothing.
//   - A file that has just become empty is looked at twice, because some editors empty a file before they write it.
package file
