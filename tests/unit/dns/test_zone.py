"""Names for addresses: which records there are, and how they are written."""

from __future__ import annotations

import base64
import re
from datetime import date
from ipaddress import ip_address
from typing import Any

import dns.name
import dns.rdatatype
import dns.reversename
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.dns.zone import (
    MAX_DNSMASQ_LINE,
    MAX_SERIAL,
    Extras,
    InUse,
    Record,
    State,
    Zone,
    compare,
    dkim_text,
    dnsmasq_lines,
    quoted,
    relative,
    serial_after,
    serial_in,
    strings_of,
    zones_of,
)
from waypost.mail.address import IPAddress, as_value

FOUR, FIVE = ip_address("192.168.1.10"), ip_address("192.168.1.5")
SIX = ip_address("fd00:9::10")
TODAY = date(2026, 11, 22)


def in_use(**changed: Any) -> InUse:
    """One address of ours and nothing else, but for what is changed."""
    return InUse(**{"groups": {}, "domains": [], "own": [FIVE], **changed})


def zones(use: InUse, **options: Any) -> dict[str, Zone]:
    return {zone.name: zone for zone in zones_of(use, Extras(**options))}


def lines(zone: Zone) -> list[str]:
    return [record.line(zone.name) for record in zone.records]


# What there is.


def test_a_domain_of_a_group_has_the_group_s_addresses() -> None:
    found = zones(in_use(groups={FOUR: ["plant.example"], SIX: ["plant.example"]}))
    assert lines(found["plant.example"]) == [
        "@ IN NS mail",
        "@ IN MX 10 mail",
        "mail IN A 192.168.1.10",
        "mail IN AAAA fd00:9::10",
        'mail IN TXT "v=spf1 a -all"',
        '@ IN TXT "v=spf1 ip4:192.168.1.10 ip6:fd00:9::10 mx -all"',
        '_dmarc IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@plant.example"',
    ]
    assert list(found) == [
        "plant.example",
        "1.168.192.in-addr.arpa",
        "0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa",
    ]
    assert lines(found["1.168.192.in-addr.arpa"]) == [
        "@ IN NS mail.plant.example.",
        "10 IN PTR mail.plant.example.",
    ]
    assert lines(found["0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa"])[1] == (
        "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0 IN PTR mail.plant.example."
    )


def test_domains_that_share_an_address_have_a_name_each_and_one_way_back() -> None:
    found = zones(in_use(groups={FOUR: ["shop.example", "depot.example"]}))
    for domain in ("shop.example", "depot.example"):
        assert "@ IN MX 10 mail" in lines(found[domain])
        assert "mail IN A 192.168.1.10" in lines(found[domain])
    assert lines(found["1.168.192.in-addr.arpa"])[1:] == ["10 IN PTR mail.shop.example."]


def test_other_domains_have_all_addresses_that_no_group_has() -> None:
    found = zones(
        in_use(groups={FOUR: ["shop.example"]}, domains=["plant.example"], own=[FIVE, FOUR, SIX])
    )
    assert '@ IN TXT "v=spf1 ip4:192.168.1.5 ip6:fd00:9::10 mx -all"' in lines(
        found["plant.example"]
    )
    assert '@ IN TXT "v=spf1 ip4:192.168.1.10 mx -all"' in lines(found["shop.example"])


def test_where_groups_have_all_addresses_other_domains_share_them() -> None:
    found = zones(in_use(groups={FIVE: ["shop.example"]}, domains=["plant.example"]))
    assert "mail IN A 192.168.1.5" in lines(found["plant.example"])
    assert lines(found["1.168.192.in-addr.arpa"])[1:] == ["5 IN PTR mail.shop.example."]


def test_the_host_name_takes_mail_in_its_domain() -> None:
    found = zones(
        in_use(domains=["plant.example", "hub.plant.example"], hostname="hub.plant.example")
    )
    assert list(found) == ["plant.example", "1.168.192.in-addr.arpa"]
    assert lines(found["plant.example"])[:3] == [
        "@ IN NS hub",
        "@ IN MX 10 hub",
        "hub IN A 192.168.1.5",
    ]
    assert lines(found["1.168.192.in-addr.arpa"])[1:] == ["5 IN PTR hub.plant.example."]


def test_a_host_name_in_no_domain_of_ours_is_a_zone() -> None:
    found = zones(in_use(domains=["hub.lan"], hostname="hub.lan"))
    assert lines(found["hub.lan"]) == [
        "@ IN NS @",
        "@ IN MX 10 @",
        "@ IN A 192.168.1.5",
        '@ IN TXT "v=spf1 ip4:192.168.1.5 mx -all"',
        '_dmarc IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@hub.lan"',
    ]


def test_a_host_name_leads_here_though_groups_have_all_addresses() -> None:
    use = in_use(groups={FIVE: ["plant.example"]}, hostname="hub.plant.example")
    found = zones(use)
    assert "hub IN A 192.168.1.5" in lines(found["plant.example"])
    assert lines(found["1.168.192.in-addr.arpa"])[1:] == ["5 IN PTR mail.plant.example."]


def test_a_name_of_an_address_wins_and_may_lie_elsewhere() -> None:
    use = in_use(
        groups={FOUR: ["plant.example"], SIX: ["plant.example"]},
        names={FOUR: "mail.other.example", SIX: "six.plant.example"},
    )
    found = zones(use)
    plant = lines(found["plant.example"])
    assert "@ IN MX 10 mail.other.example." in plant
    assert "@ IN MX 10 six" in plant
    assert "six IN AAAA fd00:9::10" in plant
    assert not [line for line in plant if line.endswith("192.168.1.10")]
    assert lines(found["1.168.192.in-addr.arpa"])[1:] == ["10 IN PTR mail.other.example."]


def test_a_domain_below_another_is_delegated_with_glue() -> None:
    found = zones(in_use(groups={FOUR: ["plant.example"], FIVE: ["hall.plant.example"]}))
    above, below = lines(found["plant.example"]), lines(found["hall.plant.example"])
    assert "hall IN NS mail.hall" in above
    assert "mail.hall IN A 192.168.1.5" in above
    assert [line for line in above if line.startswith("hall IN ")] == ["hall IN NS mail.hall"]
    assert "@ IN NS mail" in below


def test_submission_is_named_where_it_can_be_reached() -> None:
    use = in_use(
        groups={FOUR: ["plant.example"], SIX: ["six.example"]},
        submission=[(ip_address("0.0.0.0"), 587), (SIX, 2587), (ip_address("127.0.0.1"), 588)],
    )
    found = zones(use)
    assert "_submission._tcp IN SRV 0 1 587 mail" in lines(found["plant.example"])
    assert "_submission._tcp IN SRV 0 1 2587 mail" in lines(found["six.example"])
    assert len([r for z in found.values() for r in z.records if r.kind == "SRV"]) == 2


def test_dkim_makes_dmarc_stricter() -> None:
    found = zones(in_use(domains=["plant.example"]), dkim={"s1": "v=DKIM1; k=rsa; p=AAAA"})
    assert 's1._domainkey IN TXT "v=DKIM1; k=rsa; p=AAAA"' in lines(found["plant.example"])
    assert any("p=quarantine" in line for line in lines(found["plant.example"]))


def test_mail_may_leave_by_others_too() -> None:
    found = zones(in_use(domains=["plant.example"]), spf=["include:_spf.far.example"])
    assert '@ IN TXT "v=spf1 ip4:192.168.1.5 mx include:_spf.far.example -all"' in lines(
        found["plant.example"]
    )


def test_other_name_servers() -> None:
    use = in_use(domains=["plant.example"])
    for zone in zones(use, name_servers=["ns.far.example"]).values():
        assert lines(zone)[0] == "@ IN NS ns.far.example."
        assert zone.primary == "ns.far.example"
    with pytest.raises(ValueError, match=r"ns\.plant\.example"):
        zones(use, name_servers=["ns.plant.example"])


@pytest.mark.parametrize(
    ("use", "advice"),
    [
        (in_use(), "name one in addresses.domains or addresses.groups"),
        (in_use(domains=["plant.example"], own=[]), "name it in addresses.own"),
        (in_use(domains=[".".join(["a" * 60] * 4 + ["abcdefg"])]), "no name DNS can hold"),
    ],
)
def test_what_is_missing_is_said(use: InUse, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        zones_of(use)


# How it is written.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plant.example", "@"),
        ("mail.plant.example", "mail"),
        ("a.b.plant.example", "a.b"),
        ("xplant.example", "xplant.example."),
        ("example", "example."),
        ("mail.other.example", "mail.other.example."),
    ],
)
def test_names_are_relative_inside_and_absolute_outside(name: str, text: str) -> None:
    assert relative(name, "plant.example") == text


# v4-mapped ones are IPv4 everywhere (mail/address).
ADDRESSES = st.ip_addresses().filter(lambda ip: as_value(ip) == ip)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


@st.composite
def uses(draw: st.DrawFn) -> InUse:
    groups = draw(
        st.dictionaries(
            ADDRESSES, st.lists(DOMAINS, min_size=1, max_size=3, unique=True), max_size=3
        )
    )
    return InUse(
        groups=groups,
        domains=draw(st.lists(DOMAINS, max_size=3)),
        own=draw(st.lists(ADDRESSES, min_size=1, max_size=3, unique=True)),
        hostname=draw(st.one_of(st.none(), DOMAINS)),
        names=draw(st.dictionaries(st.sampled_from(list(groups) or [FIVE]), DOMAINS, max_size=2)),
        submission=[(ip_address("0.0.0.0"), 587)],
    )


@given(uses())
def test_a_foreign_reader_reads_what_was_meant(use: InUse) -> None:
    """dnspython finds the same records, and names and addresses lead to each other."""
    if not (use.groups or use.domains or use.hostname):
        return
    made = zones_of(use)
    assert len({zone.name for zone in made}) == len(made)
    names = {name for zone in made for name in (r.name for r in zone.records)}
    places: set[tuple[str, str]] = set()
    ours = [zone.name for zone in made]
    for zone in made:
        read = dns.zone.from_text(zone.text(7), origin=f"{zone.name}.", relativize=False)
        found = {
            (name.to_text(omit_final_dot=True), dns.rdatatype.to_text(rdata.rdtype), _data(rdata))
            for name, _, rdata in read.iterate_rdatas()
            if rdata.rdtype != dns.rdatatype.SOA
        }
        assert found == {(r.name, r.kind, r.data) for r in zone.records}
        assert not any(record.kind == "CNAME" for record in zone.records)
        places |= {(r.name, r.data) for r in zone.records if r.kind in ("A", "AAAA")}
    for zone in made:
        for record in zone.records:
            if record.target and any(f".{record.target}".endswith(f".{name}") for name in ours):
                assert record.target in names
            if record.kind == "PTR" and record.target in names:
                ip = dns.reversename.to_address(dns.name.from_text(record.name))
                assert (record.target, str(ip_address(ip))) in places


def _data(rdata: Any) -> str:
    if rdata.rdtype == dns.rdatatype.TXT:
        return b"".join(rdata.strings).decode()
    if rdata.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
        return str(ip_address(rdata.address))
    return str(rdata)


@given(st.sets(ADDRESSES, min_size=1, max_size=4))
def test_nibbles_and_octets_are_the_right_way_round(own: set[IPAddress]) -> None:
    pointers = {
        record.name
        for zone in zones_of(in_use(domains=["plant.example"], own=own))
        for record in zone.records
        if record.kind == "PTR"
    }
    expected = {dns.reversename.from_address(str(ip)).to_text(omit_final_dot=True) for ip in own}
    assert pointers == expected


@given(st.text(max_size=700))
def test_texts_survive_quoting(text: str) -> None:
    try:
        octets = text.encode()
    except UnicodeEncodeError:
        return
    assert all(len(string) <= 255 for string in strings_of(text))
    assert all(len(string) == 255 for string in strings_of(text)[:-1])
    file = f"@ SOA a. b. 1 1 1 1 1\n@ NS a.\n@ TXT {quoted(text)}\n"
    zone = dns.zone.from_text(file, origin="x.example.", relativize=False)
    (rdata,) = zone.find_rdataset("x.example.", "TXT")
    assert b"".join(rdata.strings) == octets


def test_quotes_and_backslashes_are_escaped() -> None:
    assert quoted('a"b\\c;d\n') == '"a\\"b\\\\c;d\\010"'
    assert quoted("x" * 256) == f'"{"x" * 255}" "x"'


# Serials.


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, 2026112201),
        (2026112101, 2026112201),
        (2026112201, 2026112202),
        (2026112299, 2026112300),
        (2027010101, 2027010102),
        (7, 2026112201),
    ],
)
def test_serials_are_dates_and_always_rise(old: int | None, new: int) -> None:
    assert serial_after(old, TODAY) == new


@given(st.integers(0, MAX_SERIAL - 1), st.dates(date(2024, 1, 1), date(2099, 12, 31)))
def test_a_serial_never_goes_back(old: int, today: date) -> None:
    assert old < serial_after(old, today) <= MAX_SERIAL


def test_there_is_a_last_serial() -> None:
    with pytest.raises(ValueError, match="no serial is above"):
        serial_after(MAX_SERIAL, TODAY)


def test_the_serial_of_a_file_is_found() -> None:
    zone = zones(in_use(domains=["plant.example"]))["plant.example"]
    assert serial_in(zone.text(2026112203)) == 2026112203
    assert serial_in("@ SOA a. b. 1 2 3 4 5\n") is None


# DKIM keys.

RSA_DER = bytes.fromhex("30819f300d06092a864886f70d010101050003818d00") + bytes(100)
ED25519_DER = bytes.fromhex("302a300506032b6570032100") + bytes(range(32))


def pem(der: bytes, kind: str = "PUBLIC KEY") -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n"


def test_keys_become_records() -> None:
    assert dkim_text(pem(RSA_DER)) == f"v=DKIM1; k=rsa; p={base64.b64encode(RSA_DER).decode()}"
    # RFC 8463 §4: the key alone.
    key = base64.b64encode(bytes(range(32))).decode()
    assert dkim_text(pem(ED25519_DER)) == f"v=DKIM1; k=ed25519; p={key}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (pem(RSA_DER, "PRIVATE KEY"), "holds a private key; what belongs here is made by: openssl"),
        (pem(RSA_DER, "RSA PUBLIC KEY"), "holds a rsa public key"),
        ("ssh-rsa AAAA", "holds no key in PEM"),
        (pem(RSA_DER).replace("MIGf", "M!Gf"), "is damaged"),
        (pem(bytes(40)), "neither an RSA nor an Ed25519 key"),
    ],
)
def test_other_files_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        dkim_text(text)


# dnsmasq.


def test_dnsmasq_lines() -> None:
    use = in_use(
        groups={FOUR: ["plant.example"], FIVE: ["plant.example"], SIX: ["plant.example"]},
        submission=[(FOUR, 587)],
    )
    assert dnsmasq_lines(zones_of(use)) == [
        "# plant.example",
        "local=/plant.example/",
        "host-record=mail.plant.example,192.168.1.5,fd00:9::10",
        "host-record=mail.plant.example,192.168.1.10",
        "mx-host=plant.example,mail.plant.example,10",
        'txt-record=mail.plant.example,"v=spf1 a -all"',
        'txt-record=plant.example,"v=spf1 ip4:192.168.1.5 ip4:192.168.1.10 ip6:fd00:9::10 mx -all"',
        'txt-record=_dmarc.plant.example,"v=DMARC1; p=none; rua=mailto:postmaster@plant.example"',
        "srv-host=_submission._tcp.plant.example,mail.plant.example,587,0,1",
        "# 1.168.192.in-addr.arpa",
        "local=/1.168.192.in-addr.arpa/",
        "ptr-record=5.1.168.192.in-addr.arpa,mail.plant.example",
        "ptr-record=10.1.168.192.in-addr.arpa,mail.plant.example",
        "# 0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa",
        "local=/0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa/",
        f"ptr-record={SIX.reverse_pointer},mail.plant.example",
    ]


def test_texts_of_dnsmasq_are_split_and_quoted() -> None:
    zone = Zone("x.example", "x.example", "x.example", (Record("x.example", "TXT", '"\\' * 150),))
    (line,) = dnsmasq_lines([zone])[2:]
    strings = [strings_of('"\\' * 150)[0].decode(), strings_of('"\\' * 150)[1].decode()]
    escaped = ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in strings]
    assert line == f"txt-record=x.example,{','.join(escaped)}"


def test_what_dnsmasq_could_not_read_is_not_written() -> None:
    own = [ip_address(f"10.0.{third}.1") for third in range(100)]
    with pytest.raises(ValueError, match="dnsmasq does not read"):
        dnsmasq_lines(zones_of(in_use(domains=["plant.example"], own=own)))
    assert MAX_DNSMASQ_LINE == 1024


# Comparing.


def states(wanted: list[Record], *found: str, exists: bool = True) -> list[tuple[str, str]]:
    return [(c.state.value, c.record.data) for c in compare(wanted, found, exists=exists)]


A = Record("mail.plant.example", "A", "192.168.1.10")
B = Record("mail.plant.example", "A", "192.168.1.5")
SPF = Record("plant.example", "TXT", "v=spf1 mx -all")


def test_what_is_answered_is_compared_record_by_record() -> None:
    assert states([A, B], "192.168.1.5", "192.168.1.10") == [("ok", A.data), ("ok", B.data)]
    assert states([A, B], "192.168.1.10") == [("ok", A.data), ("missing", B.data)]
    assert states([A], "192.168.1.10", "10.0.0.1") == [("ok", A.data), ("extra", "10.0.0.1")]
    assert states([A, B], "192.168.1.10", "10.0.0.1") == [("ok", A.data), ("different", B.data)]
    (different,) = compare([A], ["10.0.0.1"], exists=True)
    assert (different.state, different.found) == (State.DIFFERENT, ("10.0.0.1",))


@pytest.mark.parametrize(
    ("exists", "why"), [(True, "none of this type"), (False, "there is no such name")]
)
def test_what_is_missing_has_a_reason(exists: bool, why: str) -> None:
    (missing,) = compare([A], [], exists=exists)
    assert (missing.state, missing.why) == (State.MISSING, why)


def test_texts_for_other_purposes_are_no_difference() -> None:
    assert states([SPF], "v=spf1 mx -all", "some-verification=1") == [("ok", SPF.value)]
    assert states([SPF], "some-verification=1") == [("missing", SPF.value)]
    assert states([SPF], "v=spf1 mx -all", "v=spf1 ~all") == [
        ("ok", SPF.value),
        ("extra", "v=spf1 ~all"),
    ]
    assert states([SPF], "v=spf1 ~all") == [("different", SPF.value)]
