// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config/secrets"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/telemetry"
)

var update = flag.Bool("update", false, "rewrite the expected sections of golden files")

// read reads the YAML of a message and checks it as Apply would.
func read(t *testing.T, v any, m proto.Message) error {
	t.Helper()
	j, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(j, m); err != nil {
		t.Fatalf("%s: %v", j, err)
	}
	return strict.Check(m)
}

// decoders are by the prefix of a case's file name. Each reads one element of
// the list in it.
var decoders = map[string]func(*testing.T, any) (any, error){
	"cluster": func(t *testing.T, v any) (any, error) {
		var m clusterv3.Cluster
		if err := read(t, v, &m); err != nil {
			return nil, err
		}
		d := Clusters{Transports: Transports{Keeper: secrets.NewKeeper(nil, nil)}}
		c, err := d.Cluster(&m, 1)
		if err == nil {
			c.Spec.ConnHash = 0
		}
		return c, err
	},
	"endpoints": func(t *testing.T, v any) (any, error) {
		var m endpointv3.ClusterLoadAssignment
		if err := read(t, v, &m); err != nil {
			return nil, err
		}
		return Endpoints(&m)
	},
	"route": func(t *testing.T, v any) (any, error) {
		m := &routev3.RouteConfiguration{Name: "t", VirtualHosts: []*routev3.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []*routev3.Route{{}}}}}
		if err := read(t, v, m.VirtualHosts[0].Routes[0]); err != nil {
			return nil, err
		}
		table, err := Routes{
			Registry: telemetry.NewRegistry(telemetry.Config{}),
			Read: func(path string) ([]byte, error) {
				if path == "/body" {
					return []byte("from a file"), nil
				}
				return nil, os.ErrNotExist
			},
		}.Table(m)
		if err != nil {
			return nil, err
		}
		return struct {
			Route    any
			Settings [][]filter.Setting
		}{table.Config().VirtualHosts[0].Routes[0], table.Settings}, nil
	},
	"permission": func(t *testing.T, v any) (any, error) {
		var m rbacv3.Permission
		if err := read(t, v, &m); err != nil {
			return nil, err
		}
		r, err := permission(&m)
		if err != nil {
			return nil, err
		}
		return r.String(), nil
	},
	"principal": func(t *testing.T, v any) (any, error) {
		var m rbacv3.Principal
		if err := read(t, v, &m); err != nil {
			return nil, err
		}
		r, err := principal(&m)
		if err != nil {
			return nil, err
		}
		return r.String(), nil
	},
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, path := range files {
		kind := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(kind, func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			in, want := a.Files[0], ""
			if len(a.Files) > 1 {
				want = string(a.Files[1].Data)
			}
			var list []any
			if err := yaml.UnmarshalStrict(in.Data, &list); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for i, v := range list {
				out, err := decoders[kind](t, v)
				fmt.Fprintf(&got, "%d: ", i)
				if err != nil {
					fmt.Fprintf(&got, "refused: %s\n", strings.ReplaceAll(err.Error(), "\u00a0", " "))
					continue
				}
				show(&got, reflect.ValueOf(out), "")
				got.WriteByte('\n')
			}
			if got.String() == want {
				return
			}
			if !*update {
				t.Fatalf("got\n%s", got.String())
			}
			a.Files = []txtar.File{in, {Name: "out", Data: []byte(got.String())}}
			if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// show writes what is not zero of a value.
func show(b *strings.Builder, v reflect.Value, indent string) {
	if v.CanAddr() {
		if s, ok := v.Addr().Interface().(fmt.Stringer); ok {
			b.WriteString(s.String())
			return
		}
	}
	if v.CanInterface() {
		if s, ok := v.Interface().(fmt.Stringer); ok && (v.Kind() != reflect.Pointer || !v.IsNil()) {
			b.WriteString(s.String())
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.Type().String() == "*tls.Config" {
			b.WriteString("tls")
			return
		}
		show(b, v.Elem(), indent)
	case reflect.Struct:
		b.WriteByte('{')
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !v.Field(i).IsZero() && f.Type.Kind() != reflect.Func {
				b.WriteString(" " + f.Name + "=")
				show(b, v.Field(i), indent)
			}
		}
		b.WriteString(" }")
	case reflect.Slice:
		b.WriteByte('[')
		for i := range v.Len() {
			b.WriteByte(' ')
			show(b, v.Index(i), indent)
		}
		b.WriteString(" ]")
	default:
		fmt.Fprintf(b, "%v", v.Interface())
	}
}

func TestMerge(t *testing.T) {
	one := func(name string, v any) []filter.Setting { return []filter.Setting{{Name: name, Value: v}} }
	got := Merge(one("fault", 1), append(one("cors", 2), one("fault", 3)...), nil, one("rbac", 4))
	if fmt.Sprint(got) != "[{fault false 1} {cors false 2} {rbac false 4}]" {
		t.Error(got)
	}
	only := one("cors", 1)
	if got := Merge(nil, only, nil); &got[0] != &only[0] {
		t.Error("one level that speaks is shared")
	}
	if Merge(nil, nil) != nil {
		t.Error("nobody speaks")
	}
}

func TestRulesRefuseWhatTheLayerCannotAsk(t *testing.T) {
	var m rbacv3.RBAC
	v := map[string]any{"action": "DENY", "policies": map[string]any{"p": map[string]any{
		"permissions": []any{map[string]any{"header": map[string]any{"name": "x", "present_match": true}}}, "principals": []any{map[string]any{"any": true}},
	}}}
	if err := read(t, v, &m); err != nil {
		t.Fatal(err)
	}
	if r, err := Rules(&m, authz.HTTP); err != nil || r.Action() != authz.Deny || r.Policies() != 1 {
		t.Error(err)
	}
	if _, err := Rules(&m, authz.Network); err == nil {
		t.Error("a header of a connection")
	}
	if r, err := Rules(nil, authz.HTTP); r != nil || err != nil {
		t.Error("no rules are no rules")
	}
}
