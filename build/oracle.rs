//! Writes what `tests/oracle.rs` needs for every struct: making random ones, and turning one into the oracle's by field names.

use crate::codec::{condition, snake_case};
use crate::definition::{Definition, Field, Message, Role, Struct, Type};
use std::fmt::Write;

/// All of `oracle.rs`.
pub fn generate(definitions: &[Definition]) -> String {
    let mut out = String::from("// Made by build.rs from src/protocol/messages, for tests/oracle.rs.\n\n");
    let mut cases = String::new();
    let mut defaults = String::new();
    for definition in definitions {
        let module = snake_case(&definition.name);
        for message in &definition.messages {
            let role = match message.role {
                Role::Request => "_request",
                Role::Response => "_response",
                Role::Plain => "",
            };
            let context = Context { definition, message, module: &module, oracle: format!("{module}{role}") };
            for owner in &message.structs {
                context.generate_code(&mut out, owner);
                context.to_oracle_code(&mut out, owner);
                context.defaults_code(&mut defaults, owner);
            }
            let name = &message.root().name;
            let _ = writeln!(cases, "    case!({}, {name}),", context.oracle);
        }
    }
    let _ = writeln!(out, "pub(super) const CASES: &[Case] = &[\n{cases}];\n");
    let _ = writeln!(out, "pub(super) fn check_defaults() {{\n{defaults}}}");
    out
}

struct Context<'d> {
    definition: &'d Definition,
    message: &'d Message,
    /// Our module.
    module: &'d str,
    /// The oracle's module.
    oracle: String,
}

impl Context<'_> {
    fn ours(&self, owner: &Struct) -> String {
        format!("messages::{}::{}", self.module, owner.name)
    }

    fn borrows(&self, owner: &Struct) -> bool {
        owner.fields.iter().any(|field| self.type_borrows(&field.ty))
    }

    fn type_borrows(&self, ty: &Type) -> bool {
        match ty {
            Type::String | Type::Text | Type::String16 | Type::Bytes | Type::Records => true,
            Type::Array(item) => self.type_borrows(item),
            Type::Struct(name) => self.borrows(self.message.find(name)),
            _ => false,
        }
    }

    fn is_response_records(&self, ty: &Type) -> bool {
        *ty == Type::Records && self.message.role == Role::Response
    }

    /// `line` under the condition that the version carries the field.
    fn guarded(&self, field: &Field, owner: &Struct, line: String) -> String {
        match condition(&field.versions, &owner.versions) {
            Some(condition) => format!("        if {condition} {{\n            {line}\n        }}\n"),
            None => format!("        {line}\n"),
        }
    }

    fn generate_code(&self, out: &mut String, owner: &Struct) {
        let lifetime = if self.borrows(owner) { "<'static>" } else { "" };
        let _ = writeln!(out, "impl Generate for {}{lifetime} {{", self.ours(owner));
        out.push_str(
            "    fn generate(c: &mut Choices<'_>, version: i16) -> Self {\n        let mut out = Self::default();\n",
        );
        for field in &owner.fields {
            let value = self.random(&field.ty);
            let value = match &field.nullable {
                Some(nullable) if !self.is_response_records(&field.ty) => {
                    let may_be_null = condition(nullable, &field.versions).unwrap_or("true".into());
                    format!("if {may_be_null} && c.null() {{ None }} else {{ Some({value}) }}")
                }
                _ => value,
            };
            out.push_str(&self.guarded(field, owner, format!("out.{} = {value};", field.name)));
        }
        out.push_str("        out\n    }\n}\n\n");
    }

    fn random(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "c.bool()".into(),
            Type::I8 => "c.number() as i8".into(),
            Type::I16 => "c.number() as i16".into(),
            Type::U16 => "c.number() as u16".into(),
            Type::I32 => "c.number() as i32".into(),
            Type::I64 => "c.number()".into(),
            Type::F64 => "c.number() as f64".into(),
            Type::Uuid => "c.uuid()".into(),
            Type::String | Type::String16 => "c.string()".into(),
            Type::Text => "c.string().into()".into(),
            Type::Records if self.is_response_records(ty) => "Records::Inline(c.bytes())".into(),
            Type::Bytes | Type::Records => "c.bytes()".into(),
            Type::Array(item) => format!("c.array(|c| {})", self.random(item)),
            Type::Struct(_) => "Generate::generate(c, version)".into(),
        }
    }

    fn to_oracle_code(&self, out: &mut String, owner: &Struct) {
        let lifetime = if self.borrows(owner) { "<'_>" } else { "" };
        let _ = writeln!(out, "impl ToOracle for {}{lifetime} {{", self.ours(owner));
        let _ = writeln!(out, "    type Oracle = kafka_protocol::messages::{}::{};", self.oracle, owner.name);
        out.push_str("    fn to_oracle(&self, version: i16, unknown_tags: bool) -> Self::Oracle {\n");
        out.push_str("        let mut out = Self::Oracle::default();\n");
        for field in &owner.fields {
            let place = format!("self.{}", field.name);
            let value = match field.nullable {
                Some(_) if self.is_response_records(&field.ty) => format!("Some({})", self.convert(&field.ty, &place)),
                Some(_) => format!("{place}.as_ref().map(|value| {})", self.convert(&field.ty, "value")),
                None => self.convert(&field.ty, &place),
            };
            out.push_str(&self.guarded(field, owner, format!("out.{} = {value};", field.name)));
        }
        if let Some(from) = self.definition.flexible_from {
            let _ = writeln!(out, "        if unknown_tags && version >= {from} {{");
            out.push_str("            out.unknown_tagged_fields = unknown_tagged_fields();\n        }\n");
        }
        out.push_str("        out\n    }\n}\n\n");
    }

    fn convert(&self, ty: &Type, place: &str) -> String {
        match ty {
            Type::Uuid => format!("uuid::Uuid::from_bytes({place}.0)"),
            Type::String | Type::Text | Type::String16 => format!("oracle_string(&{place}).into()"),
            Type::Records if self.is_response_records(ty) => format!("oracle_records(&{place})"),
            Type::Bytes | Type::Records => format!("bytes::Bytes::copy_from_slice({place})"),
            Type::Array(item) => {
                let by_value = !matches!(**item, Type::Struct(_) | Type::String | Type::Uuid | Type::Bytes);
                let element = self.convert(item, if by_value { "(*item)" } else { "item" });
                format!("{place}.iter().map(|item| {element}).collect()")
            }
            Type::Struct(_) => format!("{place}.to_oracle(version, unknown_tags)"),
            _ => format!("{place}.into()"),
        }
    }

    /// Numbers, flags and strings that may be absent must default to the same in both.
    fn defaults_code(&self, out: &mut String, owner: &Struct) {
        let compared = |field: &&Field| {
            let scalar = !matches!(field.ty, Type::Array(_) | Type::Struct(_) | Type::Records | Type::Bytes);
            field.nullable.is_none() && scalar
        };
        for field in owner.fields.iter().filter(compared) {
            let ours = format!("{}::default().{}", self.ours(owner), field.name);
            let oracle = format!("kafka_protocol::messages::{}::{}::default()", self.oracle, owner.name);
            let value = self.convert(&field.ty, "ours");
            let _ = writeln!(out, "    let ours = {ours};");
            let _ = writeln!(out, "    let mut expected = {oracle};\n    expected.{} = {value};", field.name);
            let _ = writeln!(out, "    assert_eq!(expected, {oracle}, \"{}.{}\");", owner.name, field.name);
        }
    }
}
