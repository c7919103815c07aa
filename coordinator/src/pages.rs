//! The pages for people: the live status and the final report. Each is one file without external resources,
//! put together from its own markup and the style and script that both share.

const STYLE: &str = include_str!("pages/style.css");
const SHARED: &str = include_str!("pages/shared.js");

/// The live status, which fetches `/status.json` every second.
pub(crate) fn status() -> String {
    assembled(include_str!("pages/status.html"))
}

/// The report of a finished job; `json` is its content.
pub(crate) fn report(json: &str) -> String {
    // Nothing in the content can end the element that it stands in.
    let content = json.replace('<', "\\u003c");
    assembled(include_str!("pages/report.html")).replace("/* report */", &content)
}

fn assembled(page: &str) -> String {
    page.replace("/* style */", STYLE).replace("/* shared */", SHARED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_need_nothing_from_elsewhere() {
        for page in [status(), report(r#"{"output": "out"}"#)] {
            assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere");
            assert!(!page.contains("/* s") && !page.contains("/* report"), "all placeholders are filled");
            assert!(page.contains("color-scheme: light dark") && page.contains("function chart"));
        }
    }

    #[test]
    fn the_content_of_a_report_cannot_end_its_element() {
        let page = report(r#"{"output": "</script><b>"}"#);
        assert!(page.contains(r"\u003c/script>\u003cb>") && !page.contains("</script><b>"));
    }
}
