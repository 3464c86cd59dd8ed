// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/istioapi"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/control/source/file"
	"github.com/meltemi/meltemi/derive"
)

// world is the control plane down to merged wishes, over some sources.
type world struct {
	graph    *derive.Graph
	objects  *source.Objects
	facts    *registry.Facts
	wishes   *intent.Wishes
	statuses *istioapi.Statuses
	gather   *source.Gatherer
}

func newWorld(sources ...source.Source) *world {
	s := intent.Defaults()
	s.AccessLogFile = "/dev/stdout"
	g := derive.NewGraph()
	gather := source.Gather(g, istioapi.Admit(s), istioapi.StandIn, sources...)
	w := &world{graph: g, gather: gather, objects: gather.Objects()}
	w.facts = registry.Build(g, w.objects, registry.Config{Domain: s.Domain}, istioapi.Entries(g, w.objects, s))
	w.wishes = intent.Merge(g, s, w.facts, istioapi.Front(g, w.objects, s))
	w.statuses = istioapi.Review(g, w.objects, s, w.facts, w.wishes)
	return w
}

// once is a folder that is read once.
type once struct{ *file.Source }

func (o once) Run(_ context.Context, sink source.Sink) error {
	o.Once(sink)
	return nil
}

// load reads the files of a folder.
func load(t testing.TB, paths ...string) *world {
	t.Helper()
	src, err := file.New(file.Defaults(paths...))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(once{src})
	if err := w.gather.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return w
}

// write puts files into a new folder.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// problems are all problems, with the folder's name cut off.
func (w *world) problems(dir string) string {
	var b strings.Builder
	w.graph.Read(func(c *derive.Context) {
		for _, p := range w.statuses.Problems.Get(c, struct{}{}) {
			fmt.Fprintln(&b, strings.ReplaceAll(p.String(), dir+"/", ""))
		}
	})
	return b.String()
}

// dump writes a value as JSON without anything that is zero; what fits is written on one line.
func dump(v any) string {
	var b strings.Builder
	layout(&b, plain(reflect.ValueOf(v)), "")
	return b.String() + "\n"
}

func layout(b *strings.Builder, v any, indent string) {
	const width = 110
	line, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	inner := indent + "  "
	switch v := v.(type) {
	case map[string]any:
		if len(indent)+len(line) > width {
			b.WriteString("{")
			sep := "\n"
			for _, k := range slices.Sorted(maps.Keys(v)) {
				fmt.Fprintf(b, "%s%s%q: ", sep, inner, k)
				layout(b, v[k], inner)
				sep = ",\n"
			}
			b.WriteString("\n" + indent + "}")
			return
		}
	case []any:
		if len(indent)+len(line) > width {
			b.WriteString("[")
			sep := "\n"
			for _, item := range v {
				b.WriteString(sep + inner)
				layout(b, item, inner)
				sep = ",\n"
			}
			b.WriteString("\n" + indent + "]")
			return
		}
	}
	b.Write(line)
}

// embeds reports whether a type may have its methods from a field.
func embeds(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		if t.Field(i).Anonymous {
			return true
		}
	}
	return false
}

// plain is v as maps, lists, strings and numbers; nil if it is zero. Whatever has a String method is a string,
// unless it has fields to show.
func plain(v reflect.Value) any {
	if !v.IsValid() {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		if out := plain(v.Elem()); out != nil {
			return out
		}
		if v.Elem().Kind() == reflect.Struct {
			return map[string]any{} // a pointer to zero says something
		}
		return v.Elem().Interface()
	}
	if v.IsZero() {
		return nil
	}
	if s, ok := v.Interface().(fmt.Stringer); ok && !embeds(v.Type()) {
		return s.String()
	}
	switch v.Kind() {
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() {
				continue
			}
			if inner := plain(v.Field(i)); inner != nil {
				out[f.Name] = inner
			}
		}
		return out
	case reflect.Slice:
		if b, ok := v.Interface().([]byte); ok {
			return string(b)
		}
		var out []any
		for i := range v.Len() {
			item := plain(v.Index(i))
			if item == nil {
				item = map[string]any{}
			}
			out = append(out, item)
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			out[fmt.Sprint(k.Interface())] = plain(v.MapIndex(k))
		}
		return out
	}
	return v.Interface()
}
