# A man page from the tables and the papers:
#	awk -f man.awk -v name=coordctl -v section=1 -v what=... -v synopsis=... -v version=... -v date=... FILE...
# FILE is verbs.def, options.def, or Markdown as docs/ has it. Before a FILE, only='A|B' takes these of its sections, and
# but='A|B' all others. A table becomes a list: its first column the terms, each other column after its title.

BEGIN {
	printf ".TH %s %s \"%s\" \"coordd %s\" \"coordd\"\n", toupper(name), section, date, version
	printf ".SH NAME\n%s \\- %s\n", dashes(name), what
	if (synopsis != "")
		printf ".SH SYNOPSIS\n.B %s\n", dashes(synopsis)
}

# Text --------------------------------------------------------------------------------------------

function dashes(s) { gsub(/-/, "\\-", s); return s }

function escaped(s) { gsub(/\\/, "\\e", s); return s }

# A line of output: no text of ours is a request.
function put(s) {
	if (s ~ /^[.']/)
		s = "\\&" s
	print s
}

# Markdown within a line: `code`, **bold**, *italic*, [text](place).
function inline(s,    out, n, part, i) {
	n = split(s, part, "`")
	for (i = 1; i <= n; i++)
		out = out (i % 2 || i == n ? plain(part[i]) : "\\fB" dashes(escaped(part[i])) "\\fR")
	return out
}

function plain(s,    m, text, place) {
	s = escaped(s)
	while (match(s, /\[[^]]*\]\([^)]*\)/)) {
		m = substr(s, RSTART, RLENGTH)
		text = place = m
		sub(/^\[/, "", text); sub(/\]\(.*/, "", text)
		sub(/^.*\]\(/, "", place); sub(/\)$/, "", place)
		s = substr(s, 1, RSTART - 1) text (place ~ /^http/ ? " <" place ">" : "") substr(s, RSTART + RLENGTH)
	}
	while (match(s, /\*\*[^*]+\*\*/))
		s = substr(s, 1, RSTART - 1) "\\fB" substr(s, RSTART + 2, RLENGTH - 4) "\\fR" substr(s, RSTART + RLENGTH)
	while (match(s, /\*[^* ][^*]*\*/))
		s = substr(s, 1, RSTART - 1) "\\fI" substr(s, RSTART + 1, RLENGTH - 2) "\\fR" substr(s, RSTART + RLENGTH)
	return s
}

# Tables of the source ----------------------------------------------------------------------------

function is_def() { return FILENAME ~ /\.def$/ }

FNR == 1 {
	end_all()
	is_left_out = only != ""
	row = ""
	if (FILENAME ~ /verbs\.def$/)
		print ".SH VERBS"
	if (FILENAME ~ /options\.def$/)
		print ".SH OPTIONS\nEach verb takes those above the first blank, and others of these, as \\fBcoordctl help\\fR \\fIVERB\\fR says."
}

is_def() && (/^(VERB|OPTION)\(/ || row != "") {
	row = row $0
	if ($0 ~ /\)$/) {
		gsub(/\\"/, "\001", row)
		n = split(row, q, "\"")
		if (row ~ /^VERB/)
			def_verb(q)
		else
			def_option(q)
		row = ""
	}
	next
}
is_def() { next }

function quoted(s) { gsub(/\001/, "\"", s); return inline(s) }

function def_verb(q) {
	printf ".TP\n\\fB%s%s\\fR", q[2] (q[2] != "" ? " " : ""), dashes(q[4])
	printf q[6] != "" ? " \\fI%s\\fR\n" : "%s\n", dashes(q[6])
	put(quoted(q[8]))
}

function def_option(q,    letter, has_value) {
	letter = match(q[1], /'.'/) ? substr(q[1], RSTART + 1, 1) : ""
	has_value = q[3] !~ /NULL/
	printf ".TP\n\\fB%s\\-\\-%s\\fR%s\n", letter != "" ? "\\-" letter "\\fR, \\fB" : "", dashes(q[2]),
	    has_value ? " \\fI" dashes(q[4]) "\\fR" : ""
	put(quoted(has_value ? q[6] : q[4]))
}

# Markdown ----------------------------------------------------------------------------------------

# Between two of them; after a title there is none.
function paragraph() {
	if (!is_titled)
		print ".PP"
	is_titled = 0
}
function end_code() {
	if (in_code)
		print ".fi\n.RE"
	in_code = 0
}
function begin_code() {
	if (!in_code)
		paragraph()
	if (!in_code)
		print ".RS 4\n.nf"
	in_code = 1
	blanks = 0
}
function put_code(s) {
	for (; blanks > 0; blanks--)
		print ""
	put(dashes(escaped(s)))
}
function end_all() {
	end_code()
	in_table = in_text = in_fence = blanks = 0
}

/^```/ {
	if (is_left_out)
		next
	if (in_fence) {
		end_all()
	} else {
		end_all()
		begin_code()
		in_fence = 1
	}
	next
}
in_fence { if (!is_left_out) put_code($0); next }

/^# / { next }
/^##+ / {
	end_all()
	title = $0
	sub(/^##+ /, "", title)
	if ($0 ~ /^## /) {
		is_left_out = (only != "" && ("|" only "|") !~ ("\\|" title "\\|")) || (but != "" && ("|" but "|") ~ ("\\|" title "\\|"))
		sub(/^[0-9]+\.? /, "", title)
		if (!is_left_out)
			print ".SH " toupper(plain(title))
	} else if (!is_left_out) {
		print ".SS " inline(title)
	}
	is_titled = 1
	next
}
is_left_out { next }

/^$/ {
	in_text = in_table = 0
	blanks += in_code
	next
}
/^    / && !in_text && !in_list {
	begin_code()
	put_code(substr($0, 5))
	next
}
{ end_code() }

/^ *\|/ {
	line = $0
	is_titled = 0
	gsub(/\\\|/, "\002", line)
	sub(/^ *\| */, "", line)
	sub(/ *\|$/, "", line)
	n = split(line, cell, / *\| */)
	for (i = 1; i <= n; i++)
		gsub(/\002/, "|", cell[i])
	if (!in_table) {
		for (i = 1; i <= n; i++)
			head[i] = cell[i]
		in_table = 1
		in_text = in_list = 0
		next
	}
	if (line ~ /^[-:| ]+$/)
		next
	printf ".TP\n"
	put(cell[1] != "" ? inline(cell[1]) : "\\&")
	text = ""
	for (i = 2; i <= n; i++)
		if (cell[i] != "")
			text = text (text != "" ? "; " : "") (n > 2 && head[i] != "" ? "\\fI" inline(head[i]) "\\fR: " : "") inline(cell[i])
	put(text != "" ? text : "\\&")
	next
}

/^(- |[0-9]+\. )/ {
	match($0, /^(-|[0-9]+\.) /)
	mark = substr($0, 1, RLENGTH - 1)
	printf ".IP %s 4\n", mark == "-" ? "\\(bu" : mark
	in_text = in_list = 1
	is_titled = 0
	put(inline(substr($0, RLENGTH + 1)))
	next
}

{
	line = $0
	if (in_list && line !~ /^ /)
		in_list = in_text
	if (!in_text) {
		if (!(in_list && line ~ /^ /))
			paragraph()
		in_text = 1
	}
	sub(/^ +/, "", line)
	put(inline(line))
}

END {
	end_all()
	print ".SH SEE ALSO"
	print see
}
