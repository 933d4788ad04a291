//! A letter as HTML: styled in line, because mail programs drop style sheets; those that keep the one sheet there
//! is get dark colours from it. Nothing is loaded from anywhere. Everything that comes in is escaped. Pure.

use std::fmt::Write as _;

use super::letter::{Block, Letter, Tone};

const SANS: &str = "font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,Helvetica,Arial,sans-serif";
const MONO: &str = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace";

/// Only colours: without it the mail is still whole.
const SHEET: &str = "\
:root{color-scheme:light dark;supported-color-schemes:light dark}\
@media (prefers-color-scheme:dark){\
.page{background:#111418!important}\
.card{background:#1b2027!important;border-right-color:#343b45!important;border-bottom-color:#343b45!important;\
border-left-color:#343b45!important}\
.ink{color:#eceff3!important}\
.dim{color:#a3adba!important}\
.line{border-color:#343b45!important}\
.code{background:#11151a!important;border-color:#343b45!important;color:#eceff3!important}\
.link{color:#7db4ff!important}\
}";

/// Lays the letter out.
pub(super) fn render(letter: &Letter) -> String {
    let mut card = String::new();
    headline(&mut card, letter);
    if !letter.numbers.is_empty() {
        heading(&mut card, "Why");
        table(&mut card, &letter.numbers, "ink");
    }
    if !letter.blocks.is_empty() {
        heading(&mut card, "Details");
    }
    for block in &letter.blocks {
        match block {
            Block::Sentence(sentence) => paragraph(&mut card, sentence),
            Block::Commands(commands) => code(&mut card, commands),
        }
    }
    if !letter.links.is_empty() {
        links(&mut card, &letter.links);
    }
    card.push_str("<div class=\"line\" style=\"border-top:1px solid #dfe3e8;margin:22px 0 12px\"></div>\n");
    table(&mut card, &letter.facts, "dim");
    page(letter, &card)
}

fn page(letter: &Letter, card: &str) -> String {
    let title = escape(&letter.title);
    let preview = escape(&letter.summary);
    let bar = bar(letter.tone);
    format!(
        "<!DOCTYPE html>\n\
         <html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"supported-color-schemes\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>{SHEET}</style>\n</head>\n\
         <body class=\"page\" style=\"margin:0;padding:0;background:#f2f4f7\">\n\
         <div style=\"display:none;max-height:0;overflow:hidden\">{preview}</div>\n\
         <table role=\"presentation\" class=\"page\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\" \
         style=\"background:#f2f4f7\"><tr><td align=\"center\" style=\"padding:16px 10px 28px\">\n\
         <table role=\"presentation\" class=\"card\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\" \
         style=\"max-width:640px;table-layout:fixed;background:#ffffff;border:1px solid #dfe3e8;border-top:5px solid {bar};\
         border-radius:6px\"><tr>\n\
         <td align=\"left\" style=\"padding:20px 22px 18px;{SANS};font-size:15px;line-height:1.5\">\n\
         {card}</td></tr></table>\n</td></tr></table>\n</body>\n</html>\n"
    )
}

/// Dark enough for white letters on it.
const fn bar(tone: Tone) -> &'static str {
    match tone {
        Tone::Alarm => "#c0271c",
        Tone::Caution => "#9a5b00",
        Tone::Relief => "#147a46",
        Tone::Plain => "#3a5f95",
    }
}

fn headline(card: &mut String, letter: &Letter) {
    let (bar, severity, plan) = (bar(letter.tone), escape(&letter.severity), escape(&letter.plan));
    let (title, summary) = (escape(&letter.title), escape(&letter.summary));
    append(
        card,
        format_args!(
            "<div style=\"margin:0 0 10px\"><span style=\"display:inline-block;background:{bar};color:#ffffff;\
             font-size:11px;font-weight:700;letter-spacing:.06em;line-height:1;padding:5px 8px;border-radius:4px\">\
             {severity}</span><span class=\"dim\" style=\"color:#5b6673;font-size:14px;font-weight:600;padding-left:10px\">\
             {plan}</span></div>\n\
             <h1 class=\"ink\" style=\"margin:0 0 8px;color:#16191d;font-size:23px;line-height:1.25;font-weight:700\">\
             {title}</h1>\n\
             <p class=\"ink\" style=\"margin:0;color:#16191d;font-size:16px;line-height:1.5\">{summary}</p>\n"
        ),
    );
}

fn heading(card: &mut String, text: &str) {
    append(
        card,
        format_args!(
            "<h2 class=\"dim\" style=\"margin:22px 0 8px;color:#5b6673;font-size:12px;font-weight:700;\
             letter-spacing:.06em;text-transform:uppercase\">{text}</h2>\n"
        ),
    );
}

fn paragraph(card: &mut String, sentence: &str) {
    let sentence = escape(sentence);
    append(
        card,
        format_args!(
            "<p class=\"ink\" style=\"margin:0 0 9px;color:#16191d;overflow-wrap:break-word;word-wrap:break-word\">\
             {sentence}</p>\n"
        ),
    );
}

fn code(card: &mut String, commands: &[String]) {
    let commands: Vec<String> = commands.iter().map(|line| command(line)).collect();
    let commands = commands.join("\n");
    append(
        card,
        format_args!(
            "<pre class=\"code\" style=\"margin:0 0 13px;padding:11px 13px;background:#f5f6f8;border:1px solid #dfe3e8;\
             border-radius:5px;color:#16191d;{MONO};font-size:12px;line-height:1.6;white-space:pre-wrap;\
             overflow-wrap:anywhere;word-break:break-word\">{commands}</pre>\n"
        ),
    );
}

/// Comments among commands stand back.
fn command(line: &str) -> String {
    let escaped = escape(line);
    if line.starts_with("--") {
        format!("<span class=\"dim\" style=\"color:#5b6673\">{escaped}</span>")
    } else {
        escaped
    }
}

fn table(card: &mut String, rows: &[(&'static str, String)], ink: &str) {
    let colour = if ink == "ink" { "#16191d" } else { "#5b6673" };
    let size = if ink == "ink" { 15 } else { 13 };
    card.push_str("<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\">\n");
    for (name, value) in rows {
        let value = escape(value);
        append(
            card,
            format_args!(
                "<tr><td class=\"dim\" valign=\"top\" width=\"92\" style=\"width:92px;padding:2px 0;color:#5b6673;\
                 {SANS};font-size:{size}px;line-height:1.5\">{name}</td>\
                 <td class=\"{ink}\" valign=\"top\" style=\"padding:2px 0;color:{colour};{SANS};font-size:{size}px;\
                 line-height:1.5;overflow-wrap:anywhere;word-break:break-word\">{value}</td></tr>\n"
            ),
        );
    }
    card.push_str("</table>\n");
}

/// Only addresses that a browser may open become links; others stay text.
fn links(card: &mut String, links: &[(&'static str, String)]) {
    card.push_str("<p style=\"margin:18px 0 0\">");
    for (name, link) in links {
        let shown = escape(link);
        if link.starts_with("https://") || link.starts_with("http://") {
            append(
                card,
                format_args!(
                    "<a class=\"link\" href=\"{shown}\" style=\"display:inline-block;color:#0b57b7;font-weight:600;\
                     padding:4px 18px 4px 0\">{name}</a>\n"
                ),
            );
        } else {
            append(card, format_args!("<span class=\"ink\" style=\"color:#16191d\">{name}: {shown}</span>\n"));
        }
    }
    card.push_str("</p>\n");
}

fn append(card: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    card.write_fmt(part).unwrap_or_default();
}

/// For text and for attributes in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters are not allowed in HTML; line breaks are how commands are kept apart.
            other if other.is_control() && other != '\n' && other != '\t' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let html = render(&Letter::of(&samples::hostile()));
        for markup in ["<script", "<img", "<b>", "</pre><", "href=\"javascript", "\" onclick"] {
            assert!(!html.contains(markup), "{markup} in {html}");
        }
        assert!(html.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;friends&quot;"), "{html}");
    }

    #[test]
    fn nothing_is_loaded_from_anywhere() {
        for notice in samples::all() {
            let html = render(&Letter::of(&notice));
            for loader in ["src=", "url(", "@import", "<link", "<script"] {
                assert!(!html.replace("&lt;img src=x", "").contains(loader), "{loader}");
            }
        }
    }

    #[test]
    fn everything_that_the_text_says_is_there() {
        let notice = samples::needs_operator();
        let html = render(&Letter::of(&notice));
        for line in notice.message.details.iter().chain([&notice.message.summary, &notice.message.incident_id]) {
            assert!(html.contains(&escape(line.trim())), "{line}");
        }
    }

    /// Each sample is a whole page; `MAIL_PREVIEW=DIRECTORY cargo test --lib pages` also writes them there, to be looked
    /// at in a browser.
    #[test]
    fn samples_are_whole_pages() {
        let previews = std::env::var_os("MAIL_PREVIEW").map(std::path::PathBuf::from);
        for (place, notice) in samples::all().into_iter().enumerate() {
            let html = render(&Letter::of(&notice));
            assert!(
                html.to_lowercase().starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"),
                "{html}"
            );
            if let Some(directory) = &previews {
                let name = format!("{place}-{}.html", notice.message.event.as_str());
                std::fs::write(directory.join(name), html).unwrap();
            }
        }
    }
}
