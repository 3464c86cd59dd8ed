// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package head

import (
	"hash/maphash"
	"strings"
	"unsafe"
)

// An Encoder writes header blocks (RFC 7541). It differs from a textbook one in
// what it puts into the dynamic table: a field it has seen before. Dates and
// request ids so never push out what repeats, a field that never repeats is
// never copied, and strings that belong to a codec's buffer are not kept.
// Strings are not Huffman-coded: between two proxies, time is dearer than bytes.
type Encoder struct {
	seed    maphash.Seed
	max     int // size of the dynamic table, as the peer last heard from us
	allowed int // what the peer allows now
	lowest  int // the least it allowed since the last block
	size    int // of the entries

	// entries holds the live ones: number n is at n % len. The newest is
	// next-1, the oldest is first.
	entries     [maxEntries]entry
	first, next uint32
	byField     index // by the hash of name and value
	byName      index // by the hash of the name
	seen        sightings

	lower []byte // scratch for names with capitals
}

type entry struct {
	name, value string
}

// An index finds entries by a hash. It may forget one where many share a set.
type index [64][4]uint32 // numbers+1

func (x *index) set(h uint64) *[4]uint32 { return &x[h%uint64(len(x))] }

// put remembers entry n in the place of the oldest of its set.
func (x *index) put(h uint64, n uint32) {
	set := x.set(h)
	copy(set[1:], set[:3])
	set[0] = n + 1
}

func (e *entry) size() int { return len(e.name) + len(e.value) + 32 }

// DefaultTable is the size of the dynamic tables, in bytes, unless the peer
// allows less.
const DefaultTable = 4096

// The peer's table may hold more entries than we remember; those are older than
// ours, so that our indexes are right and the peer evicts them first.
const (
	maxEntries = 64
	worthTable = DefaultTable / 4 // larger fields would push out too much
)

func NewEncoder() *Encoder {
	return &Encoder{seed: maphash.MakeSeed(), max: DefaultTable, allowed: DefaultTable, lowest: DefaultTable}
}

// Resize follows the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *Encoder) Resize(n int) {
	e.allowed = min(n, DefaultTable)
	e.lowest = min(e.lowest, e.allowed)
}

// begin starts a header block. If the table was made smaller and larger again,
// the larger size is for the next block: RFC 7541 section 4.2 wants two updates
// in a row, and Go's decoder refuses the second.
func (e *Encoder) begin(b []byte) []byte {
	size := e.allowed
	if e.lowest < e.max {
		size = e.lowest
	}
	e.lowest = e.allowed
	if size == e.max {
		return b
	}
	e.max = size
	e.evict(0)
	return appendInt(b, 0x20, 5, size)
}

// field appends one field; name is in lower case. Neither string is kept.
func (e *Encoder) field(b []byte, name, value string) []byte {
	index, whole := staticIndex(name, value)
	if whole {
		return appendInt(b, 0x80, 7, index)
	}
	if secret(name) {
		return appendLiteral(b, 0x10, 4, index, name, value)
	}
	hn := maphash.String(e.seed, name)
	h := hn ^ maphash.String(e.seed, value)*0x9e3779b97f4a7c15
	if n, ok := e.find(e.byField.set(h), name, value, true); ok {
		return appendInt(b, 0x80, 7, e.tableIndex(n))
	}
	if index == 0 {
		index = e.nameIndex(hn, name)
	}
	if len(name)+len(value)+32 > min(worthTable, e.max) || !e.seen.before(h) {
		return appendLiteral(b, 0, 4, index, name, value)
	}
	b = appendLiteral(b, 0x40, 6, index, name, value)
	e.insert(entry{strings.Clone(name), strings.Clone(value)}, hn, h)
	return b
}

// Sightings remember the last fields that were sent, by parts of their hashes.
type sightings [64][4]uint32

// before says whether h was seen lately, and notes it.
func (x *sightings) before(h uint64) bool {
	set, mark := &x[h%uint64(len(x))], uint32(h>>32)|1
	for _, m := range set {
		if m == mark {
			return true
		}
	}
	copy(set[1:], set[:3])
	set[0] = mark
	return false
}

// find returns the number of an entry that set knows.
func (e *Encoder) find(set *[4]uint32, name, value string, whole bool) (uint32, bool) {
	for _, slot := range set {
		n := slot - 1
		if slot == 0 || n-e.first >= e.next-e.first {
			continue // never used, or evicted since
		}
		if f := &e.entries[n%maxEntries]; f.name == name && (!whole || f.value == value) {
			return n, true
		}
	}
	return 0, false
}

// nameIndex returns the table's index of an entry with that name, 0 if there is none.
func (e *Encoder) nameIndex(hn uint64, name string) int {
	if n, ok := e.find(e.byName.set(hn), name, "", false); ok {
		return e.tableIndex(n)
	}
	return 0
}

func (e *Encoder) tableIndex(n uint32) int { return staticEntries + int(e.next-n) }

func (e *Encoder) insert(f entry, hn, h uint64) {
	e.evict(f.size())
	e.entries[e.next%maxEntries] = f
	e.size += f.size()
	e.byField.put(h, e.next)
	e.byName.put(hn, e.next)
	e.next++
}

// evict makes room for n bytes.
func (e *Encoder) evict(n int) {
	for e.first != e.next && (e.size+n > e.max || n > 0 && e.next-e.first == maxEntries) {
		old := &e.entries[e.first%maxEntries]
		e.size -= old.size()
		*old = entry{}
		e.first++
	}
}

// lowerName returns name in lower case; valid until the next call.
func (e *Encoder) lowerName(name string) string {
	i := 0
	for i < len(name) && (name[i] < 'A' || name[i] > 'Z') {
		i++
	}
	if i == len(name) {
		return name
	}
	e.lower = append(e.lower[:0], name...)
	for ; i < len(name); i++ {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			e.lower[i] = c | 0x20
		}
	}
	return unsafe.String(&e.lower[0], len(e.lower))
}

// secret says whether a field must not be in a table that all users of a
// connection share (RFC 7541 section 7.1.3).
func secret(name string) bool {
	switch name {
	case "authorization", "cookie", "set-cookie", "proxy-authorization":
		return true
	}
	return false
}

// appendInt writes an integer with a prefix of n bits (RFC 7541 section 5.1).
func appendInt(b []byte, first byte, n uint, v int) []byte {
	top := 1<<n - 1
	if v < top {
		return append(b, first|byte(v))
	}
	b = append(b, first|byte(top))
	for v -= top; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// appendLiteral writes a literal field; index is that of its name, 0 for none.
func appendLiteral(b []byte, first byte, n uint, index int, name, value string) []byte {
	b = appendInt(b, first, n, index)
	if index == 0 {
		b = append(appendInt(b, 0, 7, len(name)), name...)
	}
	return append(appendInt(b, 0, 7, len(value)), value...)
}

const staticEntries = 61

// staticIndex finds a field in the static table (RFC 7541 appendix A): 0 if
// not even its name is there.
func staticIndex(name, value string) (index int, whole bool) {
	switch name {
	case ":method":
		return staticValue(value, 2, "GET", "POST")
	case ":path":
		return staticValue(value, 4, "/", "/index.html")
	case ":scheme":
		return staticValue(value, 6, "http", "https")
	case ":status":
		return staticValue(value, 8, "200", "204", "206", "304", "400", "404", "500")
	case "accept-encoding":
		return staticValue(value, 16, "gzip, deflate")
	}
	return staticNames[name], false
}

func staticValue(value string, first int, values ...string) (int, bool) {
	for i, v := range values {
		if v == value {
			return first + i, true
		}
	}
	return first, false
}

// staticNames are the names in the static table that have no value there, by index.
var staticNames = map[string]int{
	":authority": 1, "accept-charset": 15, "accept-encoding": 16, "accept-language": 17,
	"accept-ranges": 18, "accept": 19, "access-control-allow-origin": 20, "age": 21,
	"allow": 22, "authorization": 23, "cache-control": 24, "content-disposition": 25,
	"content-encoding": 26, "content-language": 27, "content-length": 28, "content-location": 29,
	"content-range": 30, "content-type": 31, "cookie": 32, "date": 33,
	"etag": 34, "expect": 35, "expires": 36, "from": 37,
	"host": 38, "if-match": 39, "if-modified-since": 40, "if-none-match": 41,
	"if-range": 42, "if-unmodified-since": 43, "last-modified": 44, "link": 45,
	"location": 46, "max-forwards": 47, "proxy-authenticate": 48, "proxy-authorization": 49,
	"range": 50, "referer": 51, "refresh": 52, "retry-after": 53,
	"server": 54, "set-cookie": 55, "strict-transport-security": 56, "transfer-encoding": 57,
	"user-agent": 58, "vary": 59, "via": 60, "www-authenticate": 61,
}
