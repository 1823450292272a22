# Meta-analyses as a meta-analyst writes them, by metafor: ../meta_door.json.
source("common.R")
suppressPackageStartupMessages(library(metafor))

bcg <- read_data("dat_bcg")
konst <- read_data("dat_konst")
berkey <- read_data("dat_berkey")
tight <- list(rel.tol = 1e-12, x.tol = 1e-12)
estimates <- function(fit, ...) {
  list(
    beta = as.numeric(fit$b), se = fit$se, lower = fit$ci.lb, upper = fit$ci.ub, Q = fit$QE,
    tau2 = fit$tau2, sigma2 = fit$sigma2, rho = fit$rho, logLik = as.numeric(logLik(fit)), ...
  )
}
knha <- rma(yi, vi, data = bcg, test = "knha", control = list(threshold = 1e-12, maxiter = 1000))
p <- predict(knha)
blocks <- lapply(split(berkey[, c("v1i", "v2i")], berkey$trial), as.matrix)
two <- function(struct, method) {
  rma.mv(yi, bldiag(blocks), mods = ~ outcome - 1, random = ~ outcome | trial, struct = struct, data = berkey,
         method = method, control = tight)
}
V <- vcalc(vi, cluster = district, obs = study, rho = 0.6, data = konst)
write_reference("meta_door.json", list(
  knha = estimates(knha, prediction = c(p$pi.lb, p$pi.ub)),
  un_reml = estimates(two("UN", "REML")),
  hcs_ml = estimates(two("HCS", "ML")),
  cs_reml = estimates(two("CS", "REML")),
  rho = estimates(rma.mv(yi, V, random = ~ 1 | district / school, data = konst, control = tight)),
  common = estimates(rma(yi, vi, data = bcg, method = "EE"))
))
