//! `PromQL`: whether a query can be asked, and which series its value stands on.
//!
//! An instant query is answered for the time at which it was asked, however old the data behind it. So the series
//! that a query looks at are taken out of it here, and asked for their age when the query is.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use promql_parser::parser::value::ValueType;
use promql_parser::parser::{self, Expr, VectorSelector};

use super::model::Address;
use super::problem::Problem;
use super::value::{Text, Value};

/// What `max_age` may be. With less than a second nothing that is scraped would ever be fresh.
pub(super) const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// How far Prometheus looks back for the newest sample of a series, unless it is told otherwise.
const LOOK_BACK: Duration = Duration::from_secs(300);

/// A query that parses and that gives numbers.
#[derive(Debug, Clone)]
pub struct Promql {
    /// The query.
    pub text: String,
    /// What its value stands on, without what lies back on purpose (`offset`, `@`) and what asks whether something
    /// is missing (`absent`).
    pub series: Vec<Series>,
}

/// Series that a query looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// Which, as a selector.
    pub selector: String,
    /// How far back the query looks at them; `None`: at the newest sample only.
    pub back: Option<Duration>,
}

impl Promql {
    /// Parses a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expression = parser::parse(text)?;
        let gives = match expression.value_type() {
            ValueType::Vector | ValueType::Scalar => None,
            ValueType::Matrix => Some("it gives a range of samples and no number: rate(…) or max_over_time(…) of it?"),
            ValueType::String => Some("it gives a text and no number"),
        };
        if let Some(gives) = gives {
            return Err(gives.to_owned());
        }
        let mut series = Vec::new();
        collect(&expression, None, &mut series);
        Ok(Self { text: text.to_owned(), series })
    }
}

/// Collects what an expression looks at. `back`: how far subqueries around it reach back.
fn collect(expression: &Expr, back: Option<Duration>, series: &mut Vec<Series>) {
    match expression {
        Expr::Aggregate(aggregate) => {
            collect(&aggregate.expr, back, series);
            if let Some(parameter) = &aggregate.param {
                collect(parameter, back, series);
            }
        }
        Expr::Unary(unary) => collect(&unary.expr, back, series),
        Expr::Binary(binary) => {
            collect(&binary.lhs, back, series);
            collect(&binary.rhs, back, series);
        }
        Expr::Paren(paren) => collect(&paren.expr, back, series),
        Expr::Subquery(subquery) if subquery.offset.is_none() && subquery.at.is_none() => {
            collect(&subquery.expr, Some(back.unwrap_or_default() + subquery.range), series);
        }
        Expr::VectorSelector(selector) => add(selector, back.map(|back| back + LOOK_BACK), series),
        Expr::MatrixSelector(matrix) => add(&matrix.vs, Some(back.unwrap_or_default() + matrix.range), series),
        Expr::Call(call) if !call.func.name.starts_with("absent") => {
            for argument in &call.args.args {
                collect(argument, back, series);
            }
        }
        Expr::Subquery(_) | Expr::Call(_) | Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

fn add(selector: &VectorSelector, back: Option<Duration>, series: &mut Vec<Series>) {
    if selector.offset.is_some() || selector.at.is_some() {
        return;
    }
    let found = Series { selector: selector.to_string(), back };
    if !series.contains(&found) {
        series.push(found);
    }
}

/// Reads where a Prometheus is.
pub(super) fn base_url(value: Value<'_>) -> Option<Address> {
    let (doc, span, path) = (value.doc, value.span(), value.path.clone());
    let url = value.web_url()?;
    if url.expose().path().contains("/api/v1") {
        let problem = Problem::error(span, format!("`{path}` holds the API's path")).label("too long");
        doc.report(problem.help("accepted: what comes before /api/v1/query, such as \"http://127.0.0.1:9090\""));
        return None;
    }
    Some(url)
}

/// Reads a query.
pub(super) fn read(value: Value<'_>) -> Option<Promql> {
    let text = value.filled("a PromQL query such as 'sum(rate(http_requests_total[1m]))'")?;
    match Promql::parse(&text.value) {
        Ok(query) => Some(query),
        Err(reason) => {
            let (span, label) = place(&text, &reason);
            let problem = Problem::error(span, format!("`{}` is no PromQL query: {}", text.path, brief(&reason)));
            let help = "accepted: an expression that gives one number, a scalar or a vector of one element";
            text.doc.report(problem.label(label).help(help));
            None
        }
    }
}

/// The parser's words on one line.
fn brief(reason: &str) -> &str {
    reason.lines().next().unwrap_or("it does not parse").trim_end_matches(['.', ':'])
}

/// Where a query is wrong, as far as that can be told: the parser names words, and brackets can be counted.
fn place(text: &Text<'_>, reason: &str) -> (Range<usize>, &'static str) {
    let named = reason.split('\'').nth(1).filter(|word| !word.is_empty());
    if let Some(word) = named
        && text.value.matches(word).count() == 1
    {
        return (text.span_of(word), "here");
    }
    let unpaired = unpaired(&text.value).and_then(|at| Some((at, text.value.get(at..=at)?)));
    let raw = text.doc.text.get(text.span.clone()).unwrap_or_default();
    match (unpaired, raw.find(text.value.as_str())) {
        (Some((at, bracket)), Some(offset)) if text.reference.is_none() => {
            let start = text.span.start + offset + at;
            (start..start + bracket.len(), "this bracket has no partner")
        }
        (Some(_) | None, Some(_) | None) => (text.span.clone(), "does not parse"),
    }
}

/// The first bracket that is closed wrongly or never; brackets in strings are none.
fn unpaired(query: &str) -> Option<usize> {
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut quote = None;
    let mut escaped = false;
    for (at, char) in query.char_indices() {
        if let Some(end) = quote {
            if !escaped && char == end {
                quote = None;
            }
            escaped = !escaped && char == '\\' && end != '`';
            continue;
        }
        match char {
            '"' | '\'' | '`' => quote = Some(char),
            '(' => open.push((at, ')')),
            '[' => open.push((at, ']')),
            '{' => open.push((at, '}')),
            ')' | ']' | '}' => match open.pop() {
                Some((_, partner)) if partner == char => {}
                Some(_) | None => return Some(at),
            },
            _ => {}
        }
    }
    open.last().map(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(text: &str) -> Vec<(String, Option<u64>)> {
        let series = Promql::parse(text).unwrap().series;
        series.into_iter().map(|one| (one.selector, one.back.map(|back| back.as_secs()))).collect()
    }

    fn one(selector: &str, back: Option<u64>) -> (String, Option<u64>) {
        (selector.to_owned(), back)
    }

    #[test]
    fn a_query_names_the_series_that_its_value_stands_on() {
        let ratio = r#"sum(rate(r{code=~"5.."}[1m])) / sum(rate(r[1m]))"#;
        assert_eq!(series(ratio), [one(r#"r{code=~"5.."}"#, Some(60)), one("r", Some(60))]);
        assert_eq!(series("up + up"), [one("up", None)]);
        assert_eq!(series("topk(scalar(n), x)"), [one("x", None), one("n", None)]);
        assert_eq!(series("max_over_time(rate(x[1m])[30m:1m])"), [one("x", Some(31 * 60))]);
        assert_eq!(series("max_over_time(x[30m:1m])"), [one("x", Some(35 * 60))]);
        // A selector is written so that it can be asked again.
        let odd = r#"{__name__="a b", path="C:\\x\"y", re!~"\\d+"}"#;
        let (selector, _) = series(odd).remove(0);
        assert_eq!(series(&selector), [one(&selector, None)]);
        let (dotted, _) = series(r#"{"http.requests", code="500"}"#).remove(0);
        assert_eq!(series(&dotted), [one(&dotted, None)]);
        assert!(selector.contains(r#""C:\\x\"y""#) && selector.contains(r#""\\d+""#), "{selector}");
    }

    #[test]
    fn what_lies_back_on_purpose_and_what_may_be_missing_is_not_asked_for_its_age() {
        assert_eq!(series("x / x offset 1d"), [one("x", None)]);
        assert_eq!(series("rate(x[5m] offset 1h) + max_over_time(y[1h:1m] offset 1d) + z @ 1700000000"), []);
        assert_eq!(series("absent(x) or absent_over_time(y[5m])"), []);
        assert_eq!(series("vector(1) + time()"), []);
    }

    #[test]
    fn a_bracket_without_a_partner_is_found() {
        assert_eq!(unpaired("sum(rate(x[5m])"), Some(3));
        assert_eq!(unpaired("sum(x))"), Some(6));
        assert_eq!(unpaired("sum(x]"), Some(5));
        assert_eq!(unpaired(r#"x{a="(\"["} + y{b=`\`}"#), None);
    }
}
