# How the tables above complete a command line. Names hold colons, at which bash splits words; so the line is taken apart
# here. Names come from clients: they are compared and quoted, and never expanded.

# Those lines of standard input that begin with $1, each with $2 before it.
_coordctl_among() {
	local word
	while IFS= read -r word; do
		[[ -n $word && $word == "$1"* ]] || continue
		printf -v word '%q' "$word"
		COMPREPLY+=("$2$word")
	done
}

_coordctl_files() {
	local name
	while IFS= read -r name; do
		COMPREPLY+=("$2$name")
	done < <(compgen -f -- "$1")
}

# What only the broker knows, asked with the options that say which broker.
_coordctl_ask() {
	coordctl "$@" "${where[@]}" -o names --timeout 1s </dev/null 2>/dev/null
}

_coordctl() {
	local line=${COMP_LINE:0:COMP_POINT} cur='' previous='' verb='' group='' word
	local words=() rest=() where=()
	local IFS=$' \t\n'

	read -ra words <<<"$line"
	if [[ $line != *[[:blank:]] ]]; then
		cur=${words[-1]}
		unset 'words[-1]'
	fi
	for word in "${words[@]:1}"; do
		case $previous in
		-s | --server | -N | --namespace) where+=("$previous" "$word") ;;
		esac
		case $word in
		--server=* | --namespace=*) where+=("$word") ;;
		esac
		if _coordctl_values "$previous" >/dev/null; then
			previous='' # this was its value
			continue
		fi
		previous=$word
		[[ $word == -* ]] || rest+=("$word")
	done
	group=${rest[0]-}
	if [[ -n $group ]] && _coordctl_verbs "$group" >/dev/null; then
		verb="$group ${rest[1]-}"
		rest=("${rest[@]:2}")
	else
		verb=$group
		rest=("${rest[@]:1}")
	fi

	COMPREPLY=()
	if [[ $cur == --*=* ]]; then
		_coordctl_among "${cur#*=}" "${cur%%=*}=" < <(_coordctl_values "${cur%%=*}")
	elif word=$(_coordctl_values "$previous"); then
		if [[ $word == FILE ]]; then
			_coordctl_files "$cur" ''
		else
			_coordctl_among "$cur" '' <<<"$word"
		fi
	elif [[ $cur == -* ]]; then
		_coordctl_among "$cur" '' < <(_coordctl_options '' && _coordctl_options "$verb")
	elif [[ -z $verb ]]; then
		_coordctl_among "$cur" '' < <(_coordctl_verbs '')
	elif [[ $verb == *' ' ]]; then
		_coordctl_among "$cur" '' < <(_coordctl_verbs "$group")
	elif [[ $cur == @* ]]; then
		_coordctl_files "${cur#@}" @
	elif [[ $verb == 'config check' ]]; then
		_coordctl_files "$cur" ''
	elif ((${#rest[@]} == 0)) || [[ $verb == check || $verb == tail ]]; then
		_coordctl_among "$cur" '' < <(_coordctl_arguments "$verb")
	fi

	# What bash has as a word of its own already is left out of the answer.
	word=${cur%"${cur##*[:=]}"}
	if [[ -n $word && $COMP_WORDBREAKS == *[:=]* ]]; then
		COMPREPLY=("${COMPREPLY[@]#"$word"}")
	fi
}
complete -o bashdefault -F _coordctl coordctl
