// Concept groups: which captions name the same thing.
//
// A retrieval set of unseen concepts is worth its name only if nothing that
// depicts one of its concepts was trained on. So groups are unions: two pairs
// are siblings if they share ANY of these keys.
//   phrase:  the caption without its variant words (EmojiConcept,
//            StampConcept), across sources: the emoji "rocket" and the stamp
//            "A rocket." are one concept, in whatever folder the stamp lies;
//   sequence: an emoji's code points without skin tone, hair, gender and
//            presentation (EmojiBaseSequence): mermaid, merman, merperson;
//   pixels:  identical image files, under whatever caption.
#ifndef SEMVQ_TOOLS_DATA_CONCEPT_H_
#define SEMVQ_TOOLS_DATA_CONCEPT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tools/data/common.h"

namespace semvq::tools {

// Lower case, no punctuation, no article, single blanks; words in singular.
// Two captions with one phrase cannot be told apart by a fair reader, so an
// evaluation set holds each phrase once.
std::string NormalizePhrase(absl::string_view caption);

// The concept phrase of a CLDR name: what stands before ':', without the words
// that only tell gender ("woman teacher: dark skin tone" -> "teacher"; "man:
// bald" -> "person"). All flags are one base ("flag: Chad", "pirate flag" ->
// "flag"), and so are keycaps, families, kisses, couples, people holding hands.
std::string EmojiConcept(absl::string_view cldr_name);

// The concept phrase of a stamp's caption: NormalizePhrase without a leading
// measure ("a pair of ...", "a cluster of ...").
std::string StampConcept(absl::string_view caption);

// The sequence without U+FE0F, skin tones, hair components and a joined gender
// sign, with man and woman inside a longer sequence replaced by person. Empty
// if nothing is left.
std::u32string EmojiBaseSequence(std::u32string_view sequence);

// Joins pairs that share a group key and names each group after its shortest
// phrase key (ties: the alphabetically first). Keys are "phrase:", "sequence:"
// or "pixels:" and a value; every pair needs at least one phrase.
// Returns the number of groups.
int AssignConcepts(std::vector<Pair>* pairs);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_CONCEPT_H_
