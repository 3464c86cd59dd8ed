// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"fmt"
	"strconv"
	"strings"
)

// String returns r as a script for nft -f. Applying it has the effect of Apply, loopback addresses apart.
func (r Rules) String() string {
	var b strings.Builder
	for _, p := range r.Loopback {
		fmt.Fprintf(&b, "# loopback address %s\n", p)
	}
	fmt.Fprintf(&b, "table inet %s {\n", r.Table)
	for _, c := range r.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype %s hook %s priority %d; policy accept;\n", c.Name, c.Type, c.Hook, c.Priority)
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// String returns r as a line of nft.
func (r Rule) String() string {
	var parts []string
	transport := ""
	for _, m := range r.Match {
		if m.Field == Proto {
			transport = protoName(m.Number)
			parts = append(parts, "meta l4proto "+transport)
			continue
		}
		parts = append(parts, m.text(transport))
	}
	switch r.Verdict {
	case Redirect:
		parts = append(parts, "redirect to :"+strconv.Itoa(int(r.Value)))
	case SetZone:
		parts = append(parts, "ct zone set "+strconv.Itoa(int(r.Value)))
	case Masquerade:
		parts = append(parts, "masquerade")
	case Drop:
		parts = append(parts, "drop")
	default:
		parts = append(parts, "return")
	}
	if r.Why != "" {
		parts = append(parts, strconv.Quote(r.Why))
		parts[len(parts)-1] = "comment " + parts[len(parts)-1]
	}
	return strings.Join(parts, " ")
}

func protoName(n uint32) string {
	switch n {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return strconv.Itoa(int(n))
}

// text returns the condition; ports are those of transport, which an earlier condition named.
func (m Match) text(transport string) string {
	ne := ""
	if m.Not {
		ne = "!= "
	}
	number := ne + strconv.FormatUint(uint64(m.Number), 10)
	family := "ip"
	if m.Prefix.Addr().Is6() {
		family = "ip6"
	}
	switch m.Field {
	case InInterface:
		return "iifname " + ne + strconv.Quote(m.Name)
	case OutInterface:
		return "oifname " + ne + strconv.Quote(m.Name)
	case Family:
		return "meta nfproto " + ne + "ipv" + strconv.Itoa(int(m.Number))
	case Source:
		return family + " saddr " + ne + m.Prefix.String()
	case Destination:
		return family + " daddr " + ne + m.Prefix.String()
	case SourcePort:
		return transport + " sport " + number
	case DestinationPort:
		return transport + " dport " + number
	case Mark:
		return "meta mark " + ne + fmt.Sprintf("%#x", m.Number)
	case UID:
		return "meta skuid " + number
	case GID:
		return "meta skgid " + number
	case New:
		return "ct state " + ne + "new"
	}
	return fmt.Sprintf("unknown field %d", m.Field)
}
