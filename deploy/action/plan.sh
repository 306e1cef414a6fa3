#!/usr/bin/env bash
# Plans a folder of experiment files, and posts the plan as one comment of a pull request, which is
# updated when there is a new one. Exit status 1 where something would harm (CHECK=true), or where
# there could be no plan.
set -uo pipefail

arguments=(plan "$FOLDER" --data "$DATA" --check --markdown)
if [ -n "${BASE:-}" ]; then
    arguments+=(--base "$BASE")
fi
plan=$(mktemp)
trap 'rm -f "$plan" "${comment:-$plan}"' EXIT
topbill "${arguments[@]}" >"$plan"
status=$?
cat "$plan"
# Without a plan there is nothing to say: what went wrong stands in the job's log.
if [ ! -s "$plan" ]; then
    exit 1
fi
harms=$([ "$status" -eq 0 ] && echo false || echo true)
echo "harms=$harms" >>"${GITHUB_OUTPUT:-/dev/null}"
cat "$plan" >>"${GITHUB_STEP_SUMMARY:-/dev/null}"

# A comment has room for 65,536 characters; of a longer plan it has the first whole lines.
comment=$plan
if [ "$(wc -m <"$plan")" -gt 60000 ]; then
    comment=$(mktemp)
    awk '{ read += length($0) + 1; if (read > 60000) exit; print }' "$plan" >"$comment"
    printf '\n\nThe rest of the plan stands in the summary of the job.\n' >>"$comment"
fi

post() {
    local comments="repos/$GITHUB_REPOSITORY/issues/$NUMBER/comments" own
    own=$(gh api --paginate "$comments" \
        --jq '.[] | select(.body | startswith("<!-- topbill plan -->")) | .id') || return 1
    own=$(head -n 1 <<<"$own")
    if [ -n "$own" ]; then
        gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$own" \
            --field "body=@$comment" >/dev/null
    else
        gh api --method POST "$comments" --field "body=@$comment" >/dev/null
    fi
}

if [ "${COMMENT:-true}" = true ] && [ -n "${NUMBER:-}" ]; then
    # A pull request from a fork may not comment; the plan stands in the job's summary then.
    post || echo "::warning::The plan could not be posted as a comment; it stands in the summary."
fi
if [ "$harms" = true ] && [ "${CHECK:-true}" = true ]; then
    exit 1
fi
