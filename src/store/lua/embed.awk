# Turn the scripts into one C header: awk -f embed.awk DIR/*.lua > scripts_gen.h
#
# A line `-- include NAME` is replaced by the text of NAME.lua beside it. Comments that fill their line, empty lines and
# indentation are left out: what Redis gets is short, and errors still name a line of what it got.

function emit(file, dir, line)
{
	while ((getline line < file) > 0) {
		if (line ~ /^[ \t]*-- include [a-z_]+$/) {
			sub(/^[ \t]*-- include /, "", line)
			emit(dir "/" line ".lua", dir)
			continue
		}
		sub(/^[ \t]+/, "", line)
		if (line == "" || line ~ /^--/)
			continue
		if (line ~ /\\/) { # awks differ in how they write one
			print file ": no backslashes, please" > "/dev/stderr"
			exit 1
		}
		gsub(/"/, "\\\"", line)
		print "\t\"" line "\\n\""
	}
	close(file)
}

BEGIN {
	split("clock common helpers event unsubscribe_all buried message_id end_leases drop_bucket breaker_state look_at", names) # these are only included
	for (i in names)
		only_included[names[i]]
	print "/* Made by src/store/lua/embed.awk: do not edit. */"
	print "static const char *const lua_files[] = { /* name and text, in turn */"
	for (i = 1; i < ARGC; i++) {
		n = split(ARGV[i], path, "/")
		name = path[n]
		sub(/\.lua$/, "", name)
		if (name in only_included)
			continue
		dir = ARGV[i]
		sub(/\/[^\/]*$/, "", dir)
		print "\t\"" name "\","
		emit(ARGV[i], dir)
		print "\t,"
	}
	print "\t0\n};"
	exit
}
