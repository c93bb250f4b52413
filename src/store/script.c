#include "store/script.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Made by src/store/lua/embed.awk: lua_files[], name and text of each file in turn, then NULL.
 */
#include "scripts_gen.h"

static struct {
	const char *name;
	bool oom;
	struct buf text; /* made at the first use, kept */
	char sha[41];
} scripts[SCRIPT_COUNT] = {
#define SCRIPT(id, file, oom) [SCRIPT_##id] = { file, oom, { 0 }, "" },
#include "store/scripts.def"
#undef SCRIPT
};

static const char *
body_of(const char *file)
{
	for (size_t i = 0; lua_files[i]; i += 2)
		if (!strcmp(lua_files[i], file))
			return lua_files[i + 1];
	abort(); /* a row of scripts.def without its file: the build makes sure there is one */
}

static void
make(enum script script)
{
	struct buf *text = &scripts[script].text;
	uint8_t sha[EVP_MAX_MD_SIZE];

	if (text->len)
		return;
	buf_printf(text, "#!lua%s\n%s", scripts[script].oom ? " flags=allow-oom" : "",
		   body_of(scripts[script].name));
	if (!EVP_Digest(text->data, text->len, sha, NULL, EVP_sha1(), NULL))
		abort();
	for (unsigned i = 0; i < 20; i++)
		snprintf(scripts[script].sha + 2 * i, 3, "%02x", sha[i]);
}

const char *
script_text(enum script script)
{
	make(script);
	return scripts[script].text.data;
}

size_t
script_len(enum script script)
{
	make(script);
	return scripts[script].text.len;
}

const char *
script_sha(enum script script)
{
	make(script);
	return scripts[script].sha;
}

const char *
script_name(enum script script)
{
	return scripts[script].name;
}
