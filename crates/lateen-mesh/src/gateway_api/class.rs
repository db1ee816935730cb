//! Which Gateways are ours: those of a class whose controller we are.
//!
//! There are two classes that need not be written: `lateen`, and `istio`, which is what those who come from Istio have in
//! their Gateways. A `GatewayClass` object of another name is ours by its `controllerName`.

use lateen_api::Resource;
use lateen_api::gateway_api::GatewayClass;

use crate::inputs::Inputs;

/// The controller of Gateways.
pub const CONTROLLER: &str = "lateen.dev/gateway-controller";
/// What says, of routes and policies, what becomes of them in the mesh.
pub const MESH_CONTROLLER: &str = "lateen.dev/mesh-controller";
/// Istio's name for the controller of Gateways: its class is served, too.
pub const ISTIO_CONTROLLER: &str = "istio.io/gateway-controller";
/// Istio's name for a Gateway of another cluster.
const ISTIO_REMOTE: &str = "istio.io/unmanaged-gateway";

/// A class of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    /// As its status has it.
    pub(super) controller: &'static str,
    /// It stands for a Gateway somewhere else, of which only the address is of interest.
    pub(super) is_remote: bool,
}

/// The names under which we say something in a status, and under which what we do not say any more is taken away.
pub(super) fn is_ours(controller: &str) -> bool {
    [CONTROLLER, MESH_CONTROLLER, ISTIO_CONTROLLER].contains(&controller)
}

/// The class of a controller, if it is ours.
pub(super) fn of_controller(controller: &str) -> Option<Class> {
    let local = |controller| Class { controller, is_remote: false };
    match controller {
        CONTROLLER => Some(local(CONTROLLER)),
        ISTIO_CONTROLLER => Some(local(ISTIO_CONTROLLER)),
        ISTIO_REMOTE => Some(Class { controller: ISTIO_REMOTE, is_remote: true }),
        _ => None,
    }
}

fn written<'a>(inputs: &'a Inputs, name: &str) -> Option<&'a Resource<GatewayClass>> {
    inputs.gateway_classes.iter().find(|class| class.name() == name).map(|class| &**class)
}

/// The class of this name, if it is ours.
pub(super) fn named(inputs: &Inputs, name: &str) -> Option<Class> {
    if let Some(class) = written(inputs, name) {
        return of_controller(&class.spec.controller_name);
    }
    match name {
        "lateen" => of_controller(CONTROLLER),
        "istio" => of_controller(ISTIO_CONTROLLER),
        "istio-remote" => of_controller(ISTIO_REMOTE),
        _ => None,
    }
}

/// Whether it is written, and somebody else's.
pub(super) fn is_foreign(inputs: &Inputs, name: &str) -> bool {
    written(inputs, name).is_some_and(|class| {
        of_controller(&class.spec.controller_name).is_none() && class.spec.controller_name != "istio.io/mesh-controller"
    })
}
