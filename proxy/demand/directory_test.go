// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"testing"
)

func TestFirstUse(t *testing.T) {
	w := newWorld()
	w.add(web)
	w.add(db)
	w.add(mixed)
	r := newRig(t, w, nil)
	d := r.look(t, "10.1.0.1:80")
	if !d.Known || d.Protocol != HTTP || string(d.Host) != web.host || d.Namespace != ns || d.Port != 80 || d.HTTP.RouteName != web.route() {
		t.Errorf("web: %+v", d)
	}
	if why := ready(d); why != "" {
		t.Errorf("web: %s", why)
	}
	if again := r.look(t, "[::ffff:10.1.0.1]:80"); again != d {
		t.Error("the second connection got another destination")
	}
	d = r.look(t, "10.1.0.2:5432")
	if !d.Known || d.Protocol != TCP || d.HTTP != nil || d.TCP.Clusters[0].Cluster != db.cluster("") {
		t.Errorf("db: %+v", d)
	}
	if why := ready(d); why != "" {
		t.Errorf("db: %s", why)
	}
	if d = r.look(t, "10.1.0.4:9000"); d.Protocol != Unset || d.HTTP == nil || ready(d) != "" {
		t.Errorf("mixed: %+v: %s", d, ready(d))
	}
	for _, nobody := range []string{"10.1.0.1:81", "192.0.2.1:80"} {
		if d = r.look(t, nobody); d.Known || d.HTTP != nil || d.TCP != r.tmpl.TCP {
			t.Errorf("%s: %+v", nobody, d)
		}
	}
}
