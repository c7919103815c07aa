#!/usr/bin/env python3
"""Measures whether texts come back whole: placeholders, tags, links, numbers, edges, case, odd characters.

`write DIR` makes a seeded corpus, `corpus.jsonl`, of so many lines of each kind,
    and beside it what must hold
of each output,
    `expected.jsonl`. Translate the corpus with any bundle; `check DIR OUTPUT` reads the parts of
the output directory and tells how many lines of each kind are whole, with examples of those that are not.

The checks share no code with Baton. They count units as plain text, read tags with Python's HTML parser, and
compare numbers by their digits. The output of a line with odd characters must equal that of its plain twin.

    scripts/text_kinds.py write kinds
    baton run --bundle BUNDLE --mode slm --input kinds/corpus.jsonl --output out
    scripts/text_kinds.py check kinds out
"""

import argparse
import collections
import html.parser
import json
import pathlib
import random
import re
import sys

# "#" marks the place of a unit.
SENTENCES = """
Cannot open the file #.|Copy # to the new directory.|# files were deleted from the disk.
The value of # is not valid.|Welcome # to the system.|Do you want to replace # with #?
The server # did not answer in time.|Press # to continue or # to cancel.|Your message to # was sent.
The user # has no access to #.|Please see # for more information.|It was changed by # yesterday.
Failed to read # from #: the connection was closed.|Found # in the first line of the document.
The new version of # is ready to be installed.|She wrote to # (see #) and waited for an answer.
Use # instead of # if the network is slow.|Today # reached # for the first time.
We recommend # for small teams, and # for large ones.|The report about # is in the folder.
Only # of the results are shown here.|Is # the name of your machine?|No one has seen # since the morning.
Set # before you start the program.|An error occurred while # was being saved!
"""
SENTENCES = [s.strip() for line in SENTENCES.strip().splitlines() for s in line.split("|")]

PLAIN = """
This library reads images from the disk.|The children were playing happily in the garden.
Our new office opens next week in the old town.|Please close all windows before you leave the house.
The program could not connect to the printer.|A small tool that sends letters to many people.
He bought fresh bread and cheese at the market.|The meeting was moved to the following morning.
You can change the language in the settings at any time.|Nobody knows why the bridge was closed.
The teacher explained the exercise once more.|It is a simple editor for long documents.
They walked along the river until the sun went down.|The second door on the left leads to the kitchen.
"""
PLAIN = [s.strip() for line in PLAIN.strip().splitlines() for s in line.split("|")]

NAMES = ["name", "count", "user_name", "file", "total", "path", "host", "item.title", "n", "when"]
WORDS = ["tool", "river", "letter", "window", "garden", "printer", "bridge", "kitchen", "market", "teacher"]


def printf(r):
    return r.choice([
        "%s", "%d", "%i", "%u", "%x", "%c", "%5d", "%05d", "%-10s", "%+d", "%.2f", "%5.1f", "%lld",
        "%zu", "%lu",
        "%1$s", "%2$d", "%3$.1f", "%@", "%1$@", "%ld", "%p", "%e", "%hhu", "%*d", "%.*s", "%%", "%n", "%'d",
    ])


def icu(r):
    name = r.choice(["count", "n", "gender", "0", "num_files"])
    return r.choice([
        f"{{{name}, plural, one {{# file}} other {{# files}}}}",
        f"{{{name}, plural, =0 {{no files}} one {{one file}} other {{# files}}}}",
        f"{{{name}, select, male {{he}} female {{she}} other {{they}}}}",
        f"{{{name}, number}}", f"{{{name}, number, percent}}", f"{{{name}, date, short}}", f"{{{name}}}",
        f"{{{name}, selectordinal, one {{#st}} two {{#nd}} few {{#rd}} other {{#th}}}}",
        f"{{{name}, select, male {{{{n, plural, one {{his file}} other {{his files}}}}}} other {{files}}}}",
    ])


def python(r):
    name = r.choice(NAMES)
    return r.choice([
        "{}", "{0}", "{1}", f"{{{name}}}", f"{{{name}!r}}", f"{{{name}:>10}}", f"{{{name}:.2f}}",
        "{0[key]}",
        "{0.real}", f"%({r.choice(['count', 'name', 'user'])})s", f"%({r.choice(['count', 'n'])})d",
        "{:>{width}}",
        "%(size)5.1f", "{:,}", f"{{{name}:{{width}}.{{precision}}}}",
    ])


def rust(r):
    return r.choice(["{}", "{:?}", "{:#?}", "{name}", "{0:08.3}", "{value:>width$}", "{:.1}", "{x:#x}",
        "{e:?}"])


def dotnet(r):
    return r.choice(["{0}", "{1:N2}", "{0,10}", "{0,-10:C}", "{2:yyyy-MM-dd}", "{name:0.00}",
        "{0:#,##0.00}"])


def dollar(r):
    name = r.choice(NAMES)
    return r.choice([
        f"${{{name}}}", "${HOME}", "$HOME", "$PATH", f"${{{name}:-none}}", "$(prefix)", "${a + b}",
        f"#{{{name}}}", f"%{{{r.choice(['name', 'count'])}}}", "%<total>d", "$t(key.name)", "@VERSION@",
        "%PATH%",
    ])


def template(r):
    name = r.choice(NAMES)
    return r.choice([
        f"{{{{{name}}}}}", f"{{{{ {name} }}}}", f"{{{{{{{name}}}}}}}", f"{{{{ {name} | upper }}}}",
        "{% if x %}",
        "{{#if user}}", "{{/if}}", "{{> header}}", "{{.Name}}", "<%= name %>", "{ $name }", "[[link]]",
        "{{count, number}}", "__NAME__", "##NAME##", "%%NAME%%",
    ])


def qt(r):
    return r.choice(["%1", "%2", "%L1", "%3", "%n"])


def strftime(r):
    return r.choice(["%Y-%m-%d", "%H:%M:%S", "%B %d, %Y", "%d/%m/%y", "%A", "%I:%M %p"])


def entity(r):
    return r.choice(["&amp;", "&lt;", "&gt;", "&#169;", "&#x27;", "&nbsp;", "&copy;", "&mdash;",
        "&eacute;", "&quot;"])


def url(r):
    host = r.choice(["example.org", "www.example.com", "docs.example.net", "localhost:8080", "10.0.0.1"])
    tail = r.choice(["", "/", "/a/b.html", "/x?id=1&lang=en", "/wiki/Cat_(animal)", "/~user/#top",
        "/a%20b/c-d_e"])
    return r.choice([f"https://{host}{tail}", f"http://{host}{tail}", f"ftp://{host}/pub",
        "www.example.org/help",
                     "example.com/download", "mailto:help@example.org", "ssh://git@example.org/x.git"])


def email(r):
    return r.choice(["a.b@example.org", "help@example.com", "first_last+tag@mail.example.co.uk",
        "x9@example.net",
                     "no-reply@lists.example.org"])


def path(r):
    return r.choice([
        "/etc/passwd", "~/.bashrc", "./run.sh", "../src/main.rs", "C:\\Users\\Public",
        "/usr/share/doc/x-1.2/README.md",
        "docs/guide.md", "/var/log/", "%APPDATA%\\x.ini", "--force", "--output=file.txt", "-v",
        "src/lib.rs",
        "\\\\server\\share", "config.toml", "setup.py", "/home/user/My_File.txt", "~/Music/a.mp3",
    ])


def code(r):
    return r.choice(["`ls -l`", "`x = {y}`", "`a < b`", "``a`b``", "`<div>`", "`git push --force`",
        "`None`", "`%s`",
                     "<code>rm -r x</code>", "`/etc/hosts`", "`foo()`"])


def emoji(r):
    return r.choice(["👍", "🎉", "😀", "❤️", "👩‍💻", "🇮🇹", "👍🏽", "🚀", "✅", "⚠️", "1️⃣", "👨‍👩‍👧", "☕",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "⭐"])


def amount(r):
    n = r.choice(["5", "20", "1,234.50", "3.5", "100", "19.99", "0.5", "12,000"])
    return r.choice([
        f"${n}", f"£{n}", f"€{n}", f"{n} %", f"{n}%", f"{n} km", f"{n}km", f"-{n}°C", f"{n} °F",
        f"{n} MB", f"{n} kg",
        f"US${n}", f"{n} €", f"¥{n}", f"{n} GHz", f"{n} m²", f"{n} km/h", f"±{n}", f"{n} cm", f"{n} ml",
        f"₹{n}",
        f"{n} GB", f"{n} mm", f"R${n}", f"{n} USD", f"EUR {n}",
    ])


def number(r):
    return r.choice([
        str(r.randrange(2, 10)), str(r.randrange(10, 100)), str(r.randrange(100, 1000)),
            str(r.randrange(1000, 9999)),
        f"{r.randrange(1, 999)},{r.randrange(100, 999)}", f"{r.randrange(1, 99)}.{r.randrange(1, 99)}",
        f"{r.randrange(1, 9)},{r.randrange(100, 999)},{r.randrange(100, 999)}", str(r.randrange(100000,
        99999999)),
        f"{r.randrange(1, 9)}.{r.randrange(0, 20)}.{r.randrange(0, 20)}",
        f"{r.randrange(1, 99)}-{r.randrange(100, 999)}",
    ])


def identifier(r):
    return r.choice(["CVE-2024-1234", "x86_64", "IPv6", "CO₂", "H2O", "utf8_encode", "RFC2119", "A4",
        "mp3", "ISO-8859-1",
                     "B2B", "snake_case", "MAX_SIZE", "getName()", "C++", "node.js", "v1.2.3",
                     "foo::bar", "obj.method()"])


def sign(r):
    return r.choice(["→", "©", "™", "§", "†", "≥", "×", "½", "•", "—", "☐", "®", "′", "₂"])


UNITS = {
    "printf": printf, "icu": icu, "python": python, "rust": rust, "dotnet": dotnet, "dollar": dollar,
    "template": template, "qt": qt, "strftime": strftime, "entity": entity, "url": url, "email": email,
    "path": path, "code": code, "emoji": emoji, "amount": amount, "identifier": identifier, "sign": sign,
}


def around(r, unit):
    return r.choice(["#", "#", "#", "(#)", "\"#\"", "'#'", "[#]", "“#”"]).replace("#", unit)


def unit_line(r, make):
    sentence, units = r.choice(SENTENCES), []
    while "#" in sentence.replace("\0", ""):
        unit = make(r)
        units.append(unit)
        sentence = sentence.replace("#", around(r, unit).replace("#", "\0"), 1)
    return sentence.replace("\0", "#"), {"units": units}


def mixed_line(r):
    kinds = [make for name, make in UNITS.items() if name not in ("sign", "identifier", "entity")]
    return unit_line(r, lambda r: r.choice(kinds)(r))


def tags_line(r):
    words = r.choice(PLAIN).split()
    pairs = [("<b>", "</b>"), ("<i>", "</i>"), ("<a href=\"https://example.org/x?a=1\">", "</a>"),
        ("<em>", "</em>"),
             ("<span class='x'>", "</span>"), ("<code-x>", "</code-x>"), ("<g id=\"1\">", "</g>"),
             ("<0>", "</0>")]
    start = r.randrange(len(words))
    end = r.randrange(start, len(words))
    (open1, close1), (open2, close2) = r.sample(pairs, 2)
    tags = [open1, close1]
    words[start] = open1 + words[start]
    words[end] += close1
    if r.random() < 0.6:
        inner = r.randrange(start, end + 1)
        word = words[inner].removeprefix(open1).removesuffix(close1)
        words[inner] = words[inner].replace(word, open2 + word + close2)
        tags += [open2, close2]
    text = " ".join(words)
    for single in ["<br/>", "<img src=\"a.png\"/>", "<x id=\"2\"/>"]:
        if r.random() < 0.2:
            place = r.randrange(1, len(words))
            text = " ".join(words[:place]) + single + " " + " ".join(words[place:])
            tags.append(single)
            break
    return text, {"units": tags, "nested": True}


def markdown_line(r):
    words = r.choice(PLAIN).split()
    before, after = r.choice([("**", "**"), ("*", "*"), ("_", "_"), ("__", "__"), ("~~", "~~"), ("***",
        "***"),
                              ("[", "](https://example.org/x)"), ("![", "](a.png)"), ("[", "][1]"),
                              ("==", "==")])
    start = r.randrange(len(words) - 2)
    end = r.randrange(start, min(start + 3, len(words) - 2))
    words[start] = before + words[start]
    words[end] += after
    return " ".join(words), {"counts": [before, after], "paired": [before, after]}


def numbers_line(r):
    text, expected = unit_line(r, number)
    return text, {"numbers": expected["units"]}


def marker_line(r):
    marker = r.choice(["- ", "* ", "• ", "1. ", "12) ", "a) ", "# ", "## ", "> ", "- [ ] ", "- [x] ",
        "+ ", "(3) ", "– ",
                       "  - ", "> - ", "1.2. ", "IV. ", "▪ ", "\t* ", "i) ", "→ ", "Q: ", "[1] ", ">> ",
                       "#1: "])
    return marker + r.choice(PLAIN), {"prefix": marker}


def space_line(r):
    before = r.choice(["", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "\r\n"])
    after = r.choice(["", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\n\n"])
    return before + r.choice(PLAIN) + after, {"prefix": before, "suffix": after, "exact": True}


def capitals_line(r):
    plain = r.choice(PLAIN)
    return plain.upper(), {"case": "upper", "source": plain.upper()}


def title_line(r):
    small = {"the", "of", "in", "to", "a", "and", "on", "at", "for", "is", "it", "all", "was", "once"}
    words = r.choice(PLAIN).rstrip(".").split()
    title = " ".join(w if i and w.lower() in small else w[:1].upper() + w[1:] for i, w in enumerate(words))
    return title, {"case": "title", "source": title}


def odd_line(r, change):
    plain = r.choice(PLAIN)
    words = plain.split(" ")
    place = r.randrange(1, len(words))
    return change(r, words, place), {"twin": plain}


def invisible(r, words, place):
    mark = r.choice(["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u200e", "\u200f",
        "\u202a", "\u202c",
                     "\u2066", "\u2069", "\u061c", "\u034f"])
    word = words[place]
    at = r.randrange(1, len(word)) if len(word) > 1 else 0
    words[place] = r.choice([word[:at] + mark + word[at:], mark + word, word + mark])
    return " ".join(words)


def full_width(r, words, place):
    wide = lambda word: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in word)
    return " ".join(wide(w) if r.random() < 0.5 else w for w in words)


def odd_spaces(r, words, place):
    space = r.choice(["\u00a0", "\u2009", "\u202f", "\t", "  ", "\u3000", "\u2003", " \u00a0"])
    return " ".join(words[:place]) + space + " ".join(words[place:])


def no_letters_line(r):
    text = r.choice(["-----", "1,234.56", "+39 06 1234 5678", "£5", "😀😀", "...", "12:30", "2024-01-31",
        "(555) 123-4567",
                     "|---|---|", "* * *", "{}", "%s", "https://example.org/", "½", "✓", "—", "1/2",
                     "#42", "****", "$19.99",
                     "<br/>", "{{ name }}", "&nbsp;", "a@example.org", "/etc/passwd", "10.0.0.1", "0x1F",
                     "~", "№ 5", "&&"])
    return text, {"equal": text}


# Marks that stay where they stood at an edge.
EDGE_MARKS = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202c\u2066\u2069\u061c\u034f"

KINDS = {name: (lambda r, make=make: unit_line(r, make)) for name, make in UNITS.items()} | {
    "mixed": mixed_line, "tags": tags_line, "markdown": markdown_line, "numbers": numbers_line,
    "markers": marker_line, "spaces": space_line, "capitals": capitals_line, "title": title_line,
    "invisible": lambda r: odd_line(r, invisible), "full_width": lambda r: odd_line(r, full_width),
    "odd_spaces": lambda r: odd_line(r, odd_spaces), "no_letters": no_letters_line,
}


def write(arguments):
    directory = pathlib.Path(arguments.directory)
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "corpus.jsonl", "w") as corpus, open(directory / "expected.jsonl",
        "w") as expected:
        def line(identifier, text, rules):
            corpus.write(json.dumps({"id": identifier, "text": text}, ensure_ascii=False) + "\n")
            expected.write(json.dumps({"id": identifier, "text": text} | rules, ensure_ascii=False) + "\n")
        for number_, plain in enumerate(PLAIN):
            line(f"plain/{number_}", plain, {"plain": True})
        for name in arguments.kind or KINDS:
            r = random.Random(f"{name} {arguments.seed}")
            for number_ in range(arguments.lines):
                line(f"{name}/{number_}", *KINDS[name](r))


class Tags(html.parser.HTMLParser):
    """Whether the elements of a text nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=False)
        self.open, self.nests = [], True
        self.feed(re.sub(r"<(/?)(\d)", r"<\1t\2", text))  # an element's name begins with a letter
        self.close()
        self.nests = self.nests and not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.nests = False


def digits(text):
    return sorted(re.sub(r"\D", "", n) for n in re.findall(r"\d(?:[\d.,\u00a0\u202f']*\d)?", text))


def is_squeezed_in(unit, text):
    squeeze = lambda s: re.sub(r"\s", "", s)
    return squeeze(unit) in squeeze(text)


def problem(rules, output, outputs):
    """The problem of an output, or None."""
    text = rules["text"]
    for strange in "\ufffd\u2047":
        if strange in output and strange not in text:
            return "broken characters"
    if "units" in rules:
        for unit in rules["units"]:
            if output.count(unit) != text.count(unit):
                return f"{unit!r} is there {output.count(unit)} times, wanted {text.count(unit)}"
        for strange in "{}<>$`\\":
            if output.count(strange) != text.count(strange):
                return f"{strange!r} is there {output.count(strange)} times, wanted {text.count(strange)}"
    if rules.get("nested") and not Tags(output).nests:
        return "tags do not nest"
    for unit in rules.get("counts", []):
        if output.count(unit) != text.count(unit):
            return f"{unit!r} is there {output.count(unit)} times, wanted {text.count(unit)}"
    if "paired" in rules:
        before, after = map(re.escape, rules["paired"])
        if not re.search(before + r"(?!\s)[^\n]*?\w[^\n]*?(?<!\s)" + after, output):
            return "the mark opens or closes no word"
    if "numbers" in rules and digits(output) != digits(text):
        return f"numbers are {digits(output)}, wanted {digits(text)}"
    if not output.startswith(rules.get("prefix", "")) or not output.endswith(rules.get("suffix", "")):
        return "the edges differ"
    if rules.get("exact"):
        inner = output.removeprefix(rules["prefix"])
        inner = inner[:len(inner) - len(rules["suffix"])]
        if inner != inner.strip() or not inner:
            return "the edges differ"
    if rules.get("prefix") and output[len(rules["prefix"]):] == text[len(rules["prefix"]):]:
        return "not translated"
    if "case" in rules:
        words = re.findall(r"[^\W\d_]{4,}", output)
        if output == rules["source"]:
            return "not translated"
        is_kept = output == output.upper() if rules["case"] == "upper" else all(w[0].isupper() for w in words)
        if not is_kept:
            return "case is not restored"
    if "twin" in rules and output.strip(EDGE_MARKS) != outputs[rules["twin"]]:
        return f"not as its plain twin, {outputs[rules['twin']]!r}"
    if "equal" in rules and output != rules["equal"]:
        return "changed"
    return None


def check(arguments):
    outputs = {}
    for part in sorted(pathlib.Path(arguments.output).glob("part-*.jsonl")):
        for line in open(part):
            row = json.loads(line)
            outputs[row["id"]] = row
    lines = [json.loads(line) for line in open(pathlib.Path(arguments.directory) / "expected.jsonl")]
    twins = {rules["text"]: outputs[rules["id"]]["output"] for rules in lines if rules.get("plain")}
    counts, shown, warned = collections.Counter(), collections.defaultdict(list), collections.Counter()
    whole = collections.Counter()
    for rules in lines:
        kind = rules["id"].split("/")[0]
        counts[kind] += 1
        row = outputs.get(rules["id"])
        found = "no output" if row is None else problem(rules, row["output"], twins)
        whole[kind] += found is None
        warned[kind] += bool(row and row.get("warnings"))
        if found and len(shown[kind]) < arguments.examples:
            shown[kind].append((rules["text"], row and row["output"], found))
    for kind, count in counts.items():
        print(f"{kind:12} {whole[kind]:5} of {count:5} whole, {warned[kind]:5} with warnings")
        for text, output, found in shown[kind]:
            print(f"    {text!r}\n    {output!r}\n      {found}")
    sys.exit(whole != counts)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("write", help="write the corpus and what is expected")
    command.add_argument("directory")
    command.add_argument("--lines", type=int, default=1000, help="lines of each kind (default: 1000)")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--kind", action="append", choices=list(KINDS), help="only these kinds")
    command.set_defaults(run=write)
    command = commands.add_parser("check", help="check an output directory")
    command.add_argument("directory")
    command.add_argument("output")
    command.add_argument("--examples", type=int, default=3, help="lines shown of each kind (default: 3)")
    command.set_defaults(run=check)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
