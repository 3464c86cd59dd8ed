// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected sections of testdata")

// TestCapture reads cases of two sections: changes to Defaults as JSON, and the rules as nft.
func TestCapture(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases:", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := Defaults()
			if err := json.Unmarshal(ar.Files[0].Data, &s); err != nil {
				t.Fatal(err)
			}
			rules, err := Capture(s)
			got := ""
			if err != nil {
				got = "error: " + err.Error() + "\n"
			} else {
				got = rules.String()
			}
			if again, _ := Capture(s); !reflect.DeepEqual(again, rules) {
				t.Error("not the same twice")
			}
			if *update {
				ar.Files = append(ar.Files[:1], txtar.File{Name: "rules.nft", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(ar.Files) < 2 || string(ar.Files[1].Data) != got {
				t.Errorf("rules differ (run with -update to accept):\n%s", got)
			}
		})
	}
}
