//! Reads the message definitions of `src/protocol/messages/` (its README is the grammar). Writes no code; `codec` does.

use std::ops::RangeInclusive;

pub type Versions = RangeInclusive<i16>;

/// One definition file: an API with a request and a response, or a plain struct.
#[derive(Debug)]
pub struct Definition {
    /// `None` for a plain struct.
    pub key: Option<i16>,
    pub name: String,
    pub doc: Vec<String>,
    pub versions: Versions,
    /// First version with compact lengths and tagged fields.
    pub flexible_from: Option<i16>,
    pub messages: Vec<Message>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Request,
    Response,
    Plain,
}

#[derive(Debug)]
pub struct Message {
    pub role: Role,
    /// The message itself last, after the structs that it is made of.
    pub structs: Vec<Struct>,
}

#[derive(Debug)]
pub struct Struct {
    pub name: String,
    pub doc: Vec<String>,
    pub versions: Versions,
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub doc: Vec<String>,
    pub ty: Type,
    /// Those that carry the field, cut to those of the struct it is in.
    pub versions: Versions,
    /// Those in which it may be null; a part of `versions`.
    pub nullable: Option<Versions>,
    pub tag: Option<u32>,
    pub default: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Type {
    Bool,
    I8,
    I16,
    U16,
    I32,
    I64,
    F64,
    Uuid,
    String,
    Text,
    String16,
    Bytes,
    Records,
    Array(Box<Type>),
    Struct(String),
}

impl Message {
    pub fn root(&self) -> &Struct {
        self.structs.last().expect("a message has a root")
    }

    pub fn find(&self, name: &str) -> &Struct {
        self.structs.iter().find(|s| s.name == name).expect("the parser has seen every struct")
    }
}

/// A line without its comment: how deep it stands and its words.
struct Line<'t> {
    number: usize,
    indent: usize,
    words: Vec<&'t str>,
    doc: Vec<String>,
}

/// Reads one file.
///
/// # Errors
/// The line and what is wrong with it.
pub fn parse(text: &str) -> Result<Definition, String> {
    let lines = lines(text);
    let mut rest = &lines[..];
    let head = take(&mut rest).ok_or("an empty file")?;
    let (key, name) = match head.words[..] {
        ["api", key, name] => (Some(key.parse().map_err(|_| at(head, "a key is a number"))?), name),
        ["struct", name] => (None, name),
        _ => return Err(at(head, "expected `api KEY Name` or `struct Name`")),
    };
    let versions = match take(&mut rest).map(|line| (line, &line.words[..])) {
        Some((line, ["versions", versions])) => {
            parse_versions(versions, &(0..=i16::MAX)).ok_or_else(|| at(line, "no version range"))?
        }
        _ => return Err(at(head, "`versions` must follow")),
    };
    let flexible_from = match take(&mut rest).map(|line| (line, &line.words[..])) {
        Some((_, ["flexible", "none"])) => None,
        Some((line, ["flexible", from])) => {
            let from = from.strip_suffix('+').and_then(|from| from.parse().ok());
            Some(from.ok_or_else(|| at(line, "expected `flexible N+` or `flexible none`"))?)
        }
        _ => return Err(at(head, "`flexible` must follow `versions`")),
    };
    let mut messages = Vec::new();
    while let Some(line) = take(&mut rest) {
        let (role, suffix) = match (&line.words[..], key) {
            (["request"], Some(_)) => (Role::Request, "Request"),
            (["response"], Some(_)) => (Role::Response, "Response"),
            (["fields"], None) => (Role::Plain, ""),
            _ => return Err(at(line, "expected `request` and `response`, or `fields` in a struct")),
        };
        let mut message = Message { role, structs: Vec::new() };
        let root = Struct {
            name: format!("{name}{suffix}"),
            doc: head.doc.clone(),
            versions: versions.clone(),
            fields: vec![],
        };
        parse_struct(&mut rest, line.indent, root, &mut message)?;
        check_tags(&message, flexible_from)?;
        messages.push(message);
    }
    if messages.len() != if key.is_some() { 2 } else { 1 } {
        return Err(at(head, "a section is missing"));
    }
    Ok(Definition { key, name: name.into(), doc: head.doc.clone(), versions, flexible_from, messages })
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut doc = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim();
        if let Some(comment) = content.strip_prefix('#') {
            doc.push(comment.trim().to_string());
        } else if !content.is_empty() {
            let indent = line.len() - line.trim_start().len();
            let words = content.split_whitespace().collect();
            lines.push(Line { number: index + 1, indent, words, doc: std::mem::take(&mut doc) });
        }
    }
    lines
}

fn take<'l, 't>(rest: &mut &'l [Line<'t>]) -> Option<&'l Line<'t>> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    Some(first)
}

fn at(line: &Line<'_>, what: &str) -> String {
    format!("line {}: {what}: {}", line.number, line.words.join(" "))
}

/// Reads the fields that stand deeper than `indent` into `owner`, and `owner` after its parts into `message`.
fn parse_struct(rest: &mut &[Line<'_>], indent: usize, mut owner: Struct, message: &mut Message) -> Result<(), String> {
    let depth = rest.first().map_or(0, |line| line.indent);
    while let Some(line) = rest.first().filter(|line| line.indent > indent) {
        if line.indent != depth {
            return Err(at(line, "does not stand under any field"));
        }
        let line = take(rest).expect("just seen");
        let field = parse_field(line, &owner.versions)?;
        if let Some(name) = struct_name(&field.ty) {
            if message.structs.iter().any(|s| s.name == name) {
                return Err(at(line, "a struct of this name stands above"));
            }
            let part = Struct { name: name.into(), doc: vec![], versions: field.versions.clone(), fields: vec![] };
            parse_struct(rest, line.indent, part, message)?;
            if message.find(name).fields.is_empty() {
                return Err(at(line, "a struct without fields, or an unknown type"));
            }
        }
        owner.fields.push(field);
    }
    message.structs.push(owner);
    Ok(())
}

fn struct_name(ty: &Type) -> Option<&str> {
    match ty {
        Type::Struct(name) => Some(name),
        Type::Array(item) => struct_name(item),
        _ => None,
    }
}

fn parse_field(line: &Line<'_>, outer: &Versions) -> Result<Field, String> {
    let [name, ty, modifiers @ ..] = &line.words[..] else {
        return Err(at(line, "expected `name type`"));
    };
    let mut modifiers = modifiers;
    let mut versions = outer.clone();
    if let [first, others @ ..] = modifiers
        && first.starts_with(|c: char| c.is_ascii_digit())
    {
        versions = parse_versions(first, outer).ok_or_else(|| at(line, "versions outside those of the struct"))?;
        modifiers = others;
    }
    let mut tag = None;
    if let ["tag", number, others @ ..] = modifiers {
        tag = Some(number.parse().map_err(|_| at(line, "a tag is a number"))?);
        modifiers = others;
    }
    let default = match modifiers {
        [] => None,
        ["=", value] => Some(value.to_string()),
        _ => return Err(at(line, "expected `name type versions tag N = default`")),
    };
    let (ty, null) = match ty.split_once('?') {
        Some((ty, "")) => (ty, Some(versions.clone())),
        Some((ty, null)) => {
            let null = parse_versions(null, &versions).ok_or_else(|| at(line, "null in versions without the field"))?;
            (ty, Some(null))
        }
        None => (*ty, None),
    };
    let ty = parse_type(ty).ok_or_else(|| at(line, "unknown type"))?;
    let can_be_null = !matches!(ty, Type::Struct(_)) && fixed_bytes(&ty).is_none();
    if null.is_some() && !can_be_null {
        return Err(at(line, "numbers and structs cannot be null here"));
    }
    Ok(Field { name: name.to_string(), doc: line.doc.clone(), ty, versions, nullable: null, tag, default })
}

fn parse_type(word: &str) -> Option<Type> {
    if let Some(item) = word.strip_prefix("[]") {
        return Some(Type::Array(Box::new(parse_type(item)?)));
    }
    Some(match word {
        "bool" => Type::Bool,
        "i8" => Type::I8,
        "i16" => Type::I16,
        "u16" => Type::U16,
        "i32" => Type::I32,
        "i64" => Type::I64,
        "f64" => Type::F64,
        "uuid" => Type::Uuid,
        "string" => Type::String,
        "text" => Type::Text,
        "string16" => Type::String16,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        name if name.starts_with(|c: char| c.is_ascii_uppercase()) => Type::Struct(name.into()),
        _ => return None,
    })
}

/// `3`, `3-8` or `3+`, which must overlap `outer` and is cut to it.
fn parse_versions(word: &str, outer: &Versions) -> Option<Versions> {
    let (first, last): (i16, i16) = match (word.split_once('-'), word.strip_suffix('+')) {
        (Some((first, last)), _) => (first.parse().ok()?, last.parse().ok()?),
        (_, Some(first)) => (first.parse().ok()?, *outer.end()),
        _ => (word.parse().ok()?, word.parse().ok()?),
    };
    let cut = first.max(*outer.start())..=last.min(*outer.end());
    (first <= last && !cut.is_empty()).then_some(cut)
}

fn check_tags(message: &Message, flexible_from: Option<i16>) -> Result<(), String> {
    for owner in &message.structs {
        let tagged: Vec<_> = owner.fields.iter().filter_map(|f| Some((f.tag?, f))).collect();
        for (index, &(tag, field)) in tagged.iter().enumerate() {
            if tag as usize != index {
                return Err(format!("{}.{}: tags count from 0, in their order", owner.name, field.name));
            }
            if flexible_from.is_none_or(|from| *field.versions.start() < from) {
                return Err(format!("{}.{}: tagged before the flexible version", owner.name, field.name));
            }
        }
    }
    Ok(())
}

/// Bytes on the wire of a type that always has the same number of them.
pub fn fixed_bytes(ty: &Type) -> Option<usize> {
    match ty {
        Type::Bool | Type::I8 => Some(1),
        Type::I16 | Type::U16 => Some(2),
        Type::I32 => Some(4),
        Type::I64 | Type::F64 => Some(8),
        Type::Uuid => Some(16),
        _ => None,
    }
}

/// The fewest bytes on the wire that a value of `ty` can have in any version: what bounds the count of an array.
pub fn bytes_min(ty: &Type, message: &Message, flexible_from: Option<i16>) -> usize {
    match ty {
        Type::Struct(name) => {
            let owner = message.find(name);
            owner.versions.clone().map(|v| struct_bytes_min(owner, message, flexible_from, v)).min().unwrap_or(0)
        }
        _ => value_bytes_min(ty, message, flexible_from, *message.root().versions.end()),
    }
}

fn struct_bytes_min(owner: &Struct, message: &Message, flexible_from: Option<i16>, version: i16) -> usize {
    let carried = owner.fields.iter().filter(|f| f.tag.is_none() && f.versions.contains(&version));
    let tags = usize::from(flexible_from.is_some_and(|from| version >= from));
    tags + carried.map(|f| value_bytes_min(&f.ty, message, flexible_from, version)).sum::<usize>()
}

fn value_bytes_min(ty: &Type, message: &Message, flexible_from: Option<i16>, version: i16) -> usize {
    let flexible = flexible_from.is_some_and(|from| version >= from);
    match ty {
        Type::String16 => 2,
        Type::String | Type::Text if !flexible => 2,
        Type::Bytes | Type::Records | Type::Array(_) if !flexible => 4,
        Type::Struct(name) => struct_bytes_min(message.find(name), message, flexible_from, version),
        ty => fixed_bytes(ty).unwrap_or(1),
    }
}
