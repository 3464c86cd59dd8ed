// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package made

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/meltemi/meltemi/netio/netns"
	"github.com/meltemi/meltemi/redirect"
)

// Patience is how long a process may take to end when asked, before it is made to.
const Patience = 5 * time.Second

// Undo takes out everything listed, newest first, and strikes out what is gone. What could not be
// undone stays listed and is in the error.
func (j *Journal) Undo(ctx context.Context) error {
	things := j.Things()
	var errs []error
	for i := len(things) - 1; i >= 0; i-- {
		if err := j.UndoOne(ctx, things[i]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// UndoOne takes out t and strikes it out.
func (j *Journal) UndoOne(ctx context.Context, t Thing) error {
	if t.Boot == "" || t.Boot == bootID() {
		if err := t.undo(ctx); err != nil {
			return fmt.Errorf("remove %s %s: %w", t.Kind, t.Name, err)
		}
	}
	return j.Forget(t)
}

func (t Thing) undo(ctx context.Context) error {
	switch t.Kind {
	case Process:
		return t.end(ctx)
	case Keeper:
		return nil
	case Namespace:
		return netns.Delete(t.Name)
	case Link:
		return netns.Namespace{}.DeleteLink(t.Name)
	case Table:
		return redirect.Rules{Table: t.Name}.Remove(netns.Namespace{})
	case Setting:
		err := os.WriteFile(t.Name, []byte(t.Value), 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // with the interface it was about
		}
		return err
	case File:
		if err := os.Remove(t.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	case Folder:
		return os.RemoveAll(t.Name)
	}
	return fmt.Errorf("nothing is known about this kind")
}

// end asks the process to end, waits, and insists. One that never ran, or is another by now, is left alone.
func (t Thing) end(ctx context.Context) error {
	if t = t.found(); !t.Alive() {
		return nil
	}
	t.signal(false)
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	if t.gone(ctx) {
		t.signal(true) // the rest of its group
		return nil
	}
	t.signal(true)
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), Patience)
	defer cancel()
	if t.gone(ctx) {
		return nil
	}
	return fmt.Errorf("process %d does not end", t.PID)
}

// Kill ends all processes listed, at once and without waiting. They stay listed.
func (j *Journal) Kill() {
	for _, t := range j.Things() {
		if t.Kind != Process || t.Boot != "" && t.Boot != bootID() {
			continue
		}
		if t = t.found(); t.Alive() {
			t.signal(true)
		}
	}
}

// found is t with its process, if that was started but not yet noted.
func (t Thing) found() Thing {
	if t.PID == 0 {
		t.PID = findMarked(t.Marker)
		t.Born = Born(t.PID)
	}
	return t
}

// gone waits until the process has ended.
func (t Thing) gone(ctx context.Context) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for t.Alive() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return !t.Alive()
		}
	}
	return true
}

// Alive reports whether the process runs and is still the one that was recorded.
func (t Thing) Alive() bool {
	return t.PID > 0 && t.Born != "" && Born(t.PID) == t.Born
}
