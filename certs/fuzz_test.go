// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import "testing"

// FuzzAnswer reads what a certificate authority answers, and the files that hold the same.
func FuzzAnswer(f *testing.F) {
	const pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
	f.Add([]byte(pem), []byte(pem), []byte("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("x\n"+pem+pem), []byte(nil), []byte("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, leaf, roots, key []byte) {
		chain, last, err := splitAnswer([]string{string(leaf), string(roots)})
		if err != nil {
			t.Fatal(err)
		}
		if all, err := ParseCertificates(chain); err == nil && len(all) == 0 {
			t.Error("no certificate, and no error")
		}
		if pool, err := ParseRoots(last); err == nil && pool == nil {
			t.Error("no roots, and no error")
		}
		if k, err := ParseKey(key); err == nil && k == nil {
			t.Error("no key, and no error")
		}
		if v, err := LoadSVID(chain, key, last); err == nil && v.Leaf() == nil {
			t.Error("a certificate without a leaf")
		}
	})
}
