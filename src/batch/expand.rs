//! What stands in `${}`: variables of the environment and the date.

use super::Surroundings;

/// Replaces `${NAME}` by the variable and `${date:FORMAT}` by the time of the run; `$${` is a literal `${`. Any other
/// dollar sign is one.
///
/// # Errors
/// A sentence without a full stop, about the first thing that can't be replaced.
pub fn expand(text: &str, around: &dyn Surroundings) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(behind) = rest.strip_prefix("$${") {
            expanded.push_str("${");
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix("${") {
            let Some((inside, behind)) = behind.split_once('}') else { return Err("a ${ without }".into()) };
            expanded.push_str(&value(inside, around)?);
            rest = behind;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value(inside: &str, around: &dyn Surroundings) -> Result<String, String> {
    if let Some(format) = inside.strip_prefix("date:") {
        return around.date(format).map_err(|why| format!("${{{inside}}}: {why}"));
    }
    let is_name = !inside.is_empty()
        && !inside.starts_with(|c: char| c.is_ascii_digit())
        && inside.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err(format!("${{{inside}}} is none of ${{NAME}} and ${{date:FORMAT}}; a literal ${{ is written $${{"));
    }
    around.variable(inside).map_err(|why| format!("${{{inside}}}: {why}"))
}
