// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/meltemi/meltemi/netio/netns"
)

// noIPv6 is how kernels say that IPv6 is switched off.
var noIPv6 = []error{unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EAFNOSUPPORT}

// Apply makes r hold in ns, in one transaction, replacing what an earlier Apply put there. It needs
// CAP_NET_ADMIN over ns and nf_tables with inet NAT (Linux 5.2).
func (r Rules) Apply(ns netns.Namespace) error {
	for _, p := range r.Loopback {
		// Where IPv6 is switched off the address cannot be had, and is not missed.
		err := ns.AddAddr("lo", p)
		if err != nil && !slices.ContainsFunc(noIPv6, func(e error) bool { return errors.Is(err, e) }) {
			return fmt.Errorf("redirect: %w", err)
		}
	}
	return inside(ns, func(c *nftables.Conn) {
		table := r.dropTable(c)
		c.AddTable(table)
		for _, ch := range r.Chains {
			chain := c.AddChain(&nftables.Chain{
				Name:     ch.Name,
				Table:    table,
				Type:     nftables.ChainType(ch.Type),
				Hooknum:  hookNumber(ch.Hook),
				Priority: nftables.ChainPriorityRef(nftables.ChainPriority(ch.Priority)),
			})
			for _, rule := range ch.Rules {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule.exprs(), UserData: comment(rule.Why)})
			}
		}
	})
}

// Remove takes r out of ns again. Rules that are not there are removed already. Connections
// that were redirected go on as they are.
func (r Rules) Remove(ns netns.Namespace) error {
	return inside(ns, func(c *nftables.Conn) { r.dropTable(c) })
}

// dropTable adds the table first, so that dropping one that is not there is no error.
func (r Rules) dropTable(c *nftables.Conn) *nftables.Table {
	table := &nftables.Table{Name: r.Table, Family: nftables.TableFamilyINet}
	c.AddTable(table)
	c.DelTable(table)
	return table
}

// inside sends what f queues as one transaction into ns.
func inside(ns netns.Namespace, f func(*nftables.Conn)) error {
	file, err := ns.Open()
	if err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	defer file.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(file.Fd())))
	if err != nil {
		return fmt.Errorf("redirect in %s: %w", ns, err)
	}
	f(c)
	err = c.Flush()
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("redirect in %s needs CAP_NET_ADMIN: run as root, or use explicit proxies: %w", ns, err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("redirect in %s: this kernel lacks nf_tables with NAT for inet (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_REDIR, CONFIG_NFT_CT; Linux 5.2): %w", ns, err)
	case err != nil:
		return fmt.Errorf("redirect in %s: %w", ns, err)
	}
	return nil
}

func hookNumber(h Hook) *nftables.ChainHook {
	switch h {
	case Prerouting:
		return nftables.ChainHookPrerouting
	case Forward:
		return nftables.ChainHookForward
	case Postrouting:
		return nftables.ChainHookPostrouting
	}
	return nftables.ChainHookOutput
}

func comment(why string) []byte {
	if why == "" {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, why)
}

const register = 1 // every condition loads and compares in one register

func (r Rule) exprs() []expr.Any {
	var es []expr.Any
	for _, m := range r.Match {
		es = append(es, m.exprs()...)
	}
	switch r.Verdict {
	case Redirect:
		return append(es,
			&expr.Immediate{Register: register, Data: binaryutil.BigEndian.PutUint16(r.Value)},
			&expr.Redir{RegisterProtoMin: register, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
		)
	case SetZone:
		return append(es,
			&expr.Immediate{Register: register, Data: binary.NativeEndian.AppendUint16(nil, r.Value)},
			&expr.Ct{Register: register, SourceRegister: true, Key: expr.CtKeyZONE},
		)
	case Masquerade:
		return append(es, &expr.Masq{})
	case Drop:
		return append(es, &expr.Verdict{Kind: expr.VerdictDrop})
	}
	return append(es, &expr.Verdict{Kind: expr.VerdictReturn})
}

func (m Match) exprs() []expr.Any {
	meta := func(key expr.MetaKey, data []byte) []expr.Any {
		return []expr.Any{&expr.Meta{Key: key, Register: register}, m.compare(data)}
	}
	number := binary.NativeEndian.AppendUint32(nil, m.Number)
	switch m.Field {
	case InInterface:
		return meta(expr.MetaKeyIIFNAME, interfaceName(m.Name))
	case OutInterface:
		return meta(expr.MetaKeyOIFNAME, interfaceName(m.Name))
	case Family:
		return meta(expr.MetaKeyNFPROTO, []byte{familyNumber(m.Number == 6)})
	case Proto:
		return meta(expr.MetaKeyL4PROTO, []byte{byte(m.Number)})
	case Mark:
		return meta(expr.MetaKeyMARK, number)
	case UID:
		return meta(expr.MetaKeySKUID, number)
	case GID:
		return meta(expr.MetaKeySKGID, number)
	case SourcePort:
		return m.port(0)
	case DestinationPort:
		return m.port(2)
	case New:
		state := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW)
		op := expr.CmpOpNeq // some of the asked bits are set
		if m.Not {
			op = expr.CmpOpEq
		}
		return []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: register},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: state, Xor: make([]byte, 4)},
			&expr.Cmp{Op: op, Register: register, Data: make([]byte, 4)},
		}
	case Source:
		return m.address(12, 8)
	case Destination:
		return m.address(16, 24)
	}
	return nil
}

func (m Match) compare(data []byte) *expr.Cmp {
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	return &expr.Cmp{Op: op, Register: register, Data: data}
}

// port compares the 16 bits at offset of the transport header.
func (m Match) port(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		m.compare(binaryutil.BigEndian.PutUint16(uint16(m.Number))),
	}
}

// address compares a prefix at the family's offset of the network header. Packets of the other family
// do not match, not even a negated condition.
func (m Match) address(offset4, offset6 uint32) []expr.Any {
	v6 := m.Prefix.Addr().Is6()
	offset := offset4
	if v6 {
		offset = offset6
	}
	addr := m.Prefix.Addr().AsSlice()
	length := uint32(len(addr))
	es := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{familyNumber(v6)}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
	}
	if m.Prefix.Bits() < m.Prefix.Addr().BitLen() {
		es = append(es, &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: length, Mask: maskOf(m.Prefix.Bits(), len(addr)), Xor: make([]byte, length)})
	}
	return append(es, m.compare(addr))
}

func familyNumber(v6 bool) byte {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// maskOf returns a mask of size bytes whose first bits are set.
func maskOf(bits, size int) []byte {
	mask := make([]byte, size)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// interfaceName returns the name as the kernel compares it: padded with zeros to IFNAMSIZ.
func interfaceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:unix.IFNAMSIZ-1], name)
	return b
}
