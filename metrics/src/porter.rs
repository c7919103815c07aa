//! The Porter stemmer with NLTK's extensions, which the `rouge-score` package uses.
//!
//! Porter, "An algorithm for suffix stripping", Program 14(3), 1980. NLTK adds irregular forms, keeps the
//! "ie" of four-letter words, and turns a final y into i after any consonant; Snowball's English stemmer is
//! another algorithm.

/// Words that the rules would stem wrongly.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("inning", "inning"),
    ("innings", "inning"),
    ("outing", "outing"),
    ("outings", "outing"),
    ("canning", "canning"),
    ("cannings", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// A suffix, its replacement, and the minimum of vowel-consonant groups in the rest.
type Rule = (&'static str, &'static str, usize);

const STEP_2: [Rule; 21] = [
    ("ational", "ate", 1),
    ("tional", "tion", 1),
    ("enci", "ence", 1),
    ("anci", "ance", 1),
    ("izer", "ize", 1),
    ("bli", "ble", 1),
    ("alli", "al", 1),
    ("entli", "ent", 1),
    ("eli", "e", 1),
    ("ousli", "ous", 1),
    ("ization", "ize", 1),
    ("ation", "ate", 1),
    ("ator", "ate", 1),
    ("alism", "al", 1),
    ("iveness", "ive", 1),
    ("fulness", "ful", 1),
    ("ousness", "ous", 1),
    ("aliti", "al", 1),
    ("iviti", "ive", 1),
    ("biliti", "ble", 1),
    ("fulli", "ful", 1),
];

const STEP_3: [Rule; 7] = [
    ("icate", "ic", 1),
    ("ative", "", 1),
    ("alize", "al", 1),
    ("iciti", "ic", 1),
    ("ical", "ic", 1),
    ("ful", "", 1),
    ("ness", "", 1),
];

/// "ion" has a rule of its own. Longer suffixes come before their own endings.
const STEP_4: [Rule; 18] = [
    ("al", "", 2),
    ("ance", "", 2),
    ("ence", "", 2),
    ("er", "", 2),
    ("ic", "", 2),
    ("able", "", 2),
    ("ible", "", 2),
    ("ant", "", 2),
    ("ement", "", 2),
    ("ment", "", 2),
    ("ent", "", 2),
    ("ou", "", 2),
    ("ism", "", 2),
    ("ate", "", 2),
    ("iti", "", 2),
    ("ous", "", 2),
    ("ive", "", 2),
    ("ize", "", 2),
];

/// The stem of a word of lower-case ASCII letters and digits.
#[must_use]
pub fn porter_stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*stem).to_owned();
    }
    let mut word = word.to_owned();
    if word.len() <= 2 {
        return word;
    }
    plurals(&mut word);
    past_and_progressive(&mut word);
    final_y(&mut word);
    double_suffixes(&mut word);
    apply_first(&mut word, &STEP_3);
    last_suffixes(&mut word);
    final_e(&mut word);
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
    word
}

/// Step 1a: caresses, ponies, cats.
fn plurals(word: &mut String) {
    let num_dropped = if word.ends_with("ies") {
        if word.len() == 4 { 1 } else { 2 }
    } else if word.ends_with("sses") {
        2
    } else {
        usize::from(word.ends_with('s') && !word.ends_with("ss"))
    };
    word.truncate(word.len() - num_dropped);
}

/// Step 1b: agreed, plastered, motoring.
fn past_and_progressive(word: &mut String) {
    if word.ends_with("ied") {
        let num_dropped = if word.len() == 4 { 1 } else { 2 };
        word.truncate(word.len() - num_dropped);
        return;
    }
    if let Some(rest) = word.strip_suffix("eed") {
        if measure(rest) > 0 {
            word.pop();
        }
        return;
    }
    let Some(rest) = word.strip_suffix("ed").or_else(|| word.strip_suffix("ing")) else { return };
    if !has_vowel(rest) {
        return;
    }
    word.truncate(rest.len());
    if ["at", "bl", "iz"].iter().any(|ending| word.ends_with(ending)) {
        word.push('e');
    } else if ends_in_double_consonant(word) {
        if !word.ends_with(['l', 's', 'z']) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_in_short_syllable(word) {
        word.push('e');
    }
}

/// Step 1c: happy.
fn final_y(word: &mut String) {
    if let Some(rest) = word.strip_suffix('y')
        && rest.len() > 1
        && consonants(rest).last() == Some(&true)
    {
        word.pop();
        word.push('i');
    }
}

/// Step 2: relational, conformably, archaeology.
fn double_suffixes(word: &mut String) {
    while let Some(rest) = word.strip_suffix("alli")
        && measure(rest) > 0
    {
        word.truncate(rest.len() + 2); // to "al", which may be the end of another suffix
    }
    // The l of "logi" counts with the stem, so that "geology" is stemmed like "archaeology".
    if word.ends_with("logi") {
        if measure(&word[..word.len() - 3]) > 0 {
            word.pop();
        }
    } else {
        apply_first(word, &STEP_2);
    }
}

/// Step 4: revival, allowance, adoption.
fn last_suffixes(word: &mut String) {
    if let Some(rest) = word.strip_suffix("ion") {
        if measure(rest) > 1 && rest.ends_with(['s', 't']) {
            word.truncate(rest.len());
        }
    } else {
        apply_first(word, &STEP_4);
    }
}

/// Step 5a: probate, cease.
fn final_e(word: &mut String) {
    if let Some(rest) = word.strip_suffix('e')
        && (measure(rest) > 1 || (measure(rest) == 1 && !ends_in_short_syllable(rest)))
    {
        word.pop();
    }
}

/// Applies the first rule whose suffix the word has, if its condition holds; tries no other.
fn apply_first(word: &mut String, rules: &[Rule]) {
    for (suffix, replacement, min_measure) in rules {
        if let Some(rest) = word.strip_suffix(suffix) {
            if measure(rest) >= *min_measure {
                word.truncate(rest.len());
                word.push_str(replacement);
            }
            return;
        }
    }
}

/// For each letter, whether it is a consonant: any letter but a, e, i, o, u, and y after a consonant.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for c in word.chars() {
        flags.push(match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => flags.last() != Some(&true),
            _ => true,
        });
    }
    flags
}

/// The number of times that a vowel is followed by a consonant.
fn measure(word: &str) -> usize {
    consonants(word).windows(2).filter(|pair| **pair == [false, true]).count()
}

fn has_vowel(word: &str) -> bool {
    consonants(word).contains(&false)
}

fn ends_in_double_consonant(word: &str) -> bool {
    let mut from_end = word.chars().rev();
    let (last, before) = (from_end.next(), from_end.next());
    last.is_some() && last == before && consonants(word).last() == Some(&true)
}

/// Consonant, vowel, consonant other than w, x, y: "hop"; or the two letters vowel, consonant.
fn ends_in_short_syllable(word: &str) -> bool {
    match consonants(word).as_slice() {
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        [false, true] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_paper_are_stemmed_as_it_says() {
        for (word, stem) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("motoring", "motor"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("relational", "relat"),
            ("conditional", "condit"),
            ("vietnamization", "vietnam"),
            ("electriciti", "electr"),
            ("adoption", "adopt"),
            ("replacement", "replac"),
            ("controll", "control"),
        ] {
            assert_eq!(porter_stem(word), stem);
        }
    }

    #[test]
    fn the_extensions_differ_from_the_paper_where_nltk_does() {
        for (word, stem) in
            [("dies", "die"), ("died", "die"), ("enjoy", "enjoy"), ("skies", "sky"), ("geology", "geolog")]
        {
            assert_eq!(porter_stem(word), stem);
        }
    }
}
